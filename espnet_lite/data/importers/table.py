"""Tables: TSV and CSV files with a header row.

    client_id  path                     sentence              Common Voice: TSV, clips/ beside it
    file,text,speaker                                         anything alike
    wav_filename,wav_filesize,transcript                      DeepSpeech
    file,start,end,text,speaker                               parts of long recordings, in seconds

CSV is read as Python's csv module writes it. TSV has no quoting, as in Common Voice, whose sentences may
begin with a quotation mark; `--quoting csv` reads one that was written with it. Given a folder, the
tables train, dev and test in it are the sets (train.tsv, validation.csv, ...). Relative paths count from the
table's folder, then from clips/ in it, or from --audio_root alone.
"""

import csv
from collections.abc import Iterator
from pathlib import Path

from espnet_lite.data.importers.entry import Entry, ImportOptions, set_of_name
from espnet_lite.data.importers.records import choose_columns, record_entry
from espnet_lite.data.importers.source_lines import source_lines, visible_files
from espnet_lite.errors import InputError


def import_tsv(path: Path, options: ImportOptions) -> Iterator[Entry]:
    """Yield the entries of a TSV file, or of the train, dev and test tables of a folder."""
    return _import_tables(path, options, suffix=".tsv")


def import_csv(path: Path, options: ImportOptions) -> Iterator[Entry]:
    """Yield the entries of a CSV file, or of the train, dev and test tables of a folder."""
    return _import_tables(path, options, suffix=".csv")


def set_tables(folder: Path, suffix: str) -> list[Path]:
    """Return the tables of a folder whose names are those of sets."""
    return [path for path in visible_files(folder, f"*{suffix}") if set_of_name(path.stem)]


def _import_tables(path: Path, options: ImportOptions, *, suffix: str) -> Iterator[Entry]:
    if not path.is_dir():
        yield from _import_table(path, options, suffix=suffix, set_name=None)
        return
    tables = set_tables(path, suffix)
    found = [table.name for table in visible_files(path, f"*{suffix}")]
    if not tables and len(found) != 1:
        names = ", ".join(found) if found else "none"
        raise InputError(
            f"no train{suffix} in this folder, it has: {names}",
            where=path,
            fix="give the path of one table",
        )
    for table in tables or [path / found[0]]:
        yield from _import_table(
            table, options, suffix=suffix, set_name=set_of_name(table.stem) if tables else None
        )


def _import_table(
    path: Path, options: ImportOptions, *, suffix: str, set_name: str | None
) -> Iterator[Entry]:
    is_tsv = suffix == ".tsv"
    quoting = options.quoting
    if quoting == "auto":
        quoting = "none" if is_tsv else "csv"
    roots = [path.parent, path.parent / "clips"] if options.audio_root is None else []
    roots = [root for root in roots if root.is_dir()] or [options.audio_root or path.parent]
    columns = None
    for where, row in read_table_rows(path, delimiter="\t" if is_tsv else ",", quoting=quoting):
        if columns is None:
            columns = choose_columns(list(row), options=options, where=f"{path}:1")
        yield record_entry(row, columns, where=where, roots=roots, set_name=set_name)


def read_table_rows(
    path: Path, *, delimiter: str, quoting: str
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield (`file:line` where the row begins, column → field) of a table with a header row.

    Raises:
        InputError: while iterating: no header or row, a column twice, a row with another number of
            fields, quoting that is not closed, what `source_lines` raises.
    """
    header: list[str] = []
    has_rows = False
    for number, fields in _rows(path, delimiter=delimiter, quoting=quoting):
        where = f"{path}:{number}"
        if not header:
            header = [name.strip() for name in fields]
            twice = next((name for name in header if header.count(name) > 1), None)
            if twice is not None:
                raise InputError(f"column '{twice}' twice in the header row", where=where)
            other = next((mark for mark in ",;\t|" if mark in header[0]), None)
            if len(header) == 1 and other is not None:
                raise InputError(
                    f"columns parted by {other!r} in the header row, expected {delimiter!r}",
                    where=where,
                    fix="give a .csv file with commas or a .tsv file with tabs, or say which it is: "
                    "--format csv or tsv",
                )
            continue
        if len(fields) != len(header):
            other = "none" if quoting == "csv" else "csv"
            raise InputError(
                f"{len(fields)} fields, the header row has {len(header)}: {' | '.join(header)[:120]}",
                where=where,
                fix=f"correct the row, or say --quoting {other}, or the other of --format tsv and csv",
            )
        has_rows = True
        yield where, dict(zip(header, fields, strict=True))
    if not has_rows:
        what = "no row below the header" if header else "empty file"
        raise InputError(f"{what}, expected a header row and a row for each utterance", where=path)


def _rows(path: Path, *, delimiter: str, quoting: str) -> Iterator[tuple[int, list[str]]]:
    """Yield (line where it begins, fields) of the rows that are not empty."""
    if quoting == "none":
        for number, line in source_lines(path):
            line = line.rstrip("\r\n")
            if line.strip():
                yield number, line.split(delimiter)
        return
    lines = (line for _, line in source_lines(path))
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    begin = 1
    while True:
        try:
            fields = next(reader, None)
        except csv.Error as error:
            raise InputError(
                f"{error} in the row that ends in line {reader.line_num}",
                where=f"{path}:{begin}",
                fix="close and double the quotation marks, or say --quoting none",
            ) from error
        if fields is None:
            return
        if any(field.strip() for field in fields):
            yield begin, fields
        begin = reader.line_num + 1
