"""Make Kaldi data directories from a folder of audio, a table or a manifest; docs/import.md tells more.

SOURCE may be a folder of audio and transcripts, a TSV or CSV table (Common Voice), a Hugging Face
AudioFolder, a NeMo manifest, or lhotse manifests. Audio stays where it is.
"""

import argparse
import sys
from pathlib import Path

from espnet_lite.bin.arguments import parser
from espnet_lite.errors import InputError, reports_input_errors

SHOWN = 10  # places of what is left out


@reports_input_errors
def main(argv: list[str] | None = None) -> int:
    """Import the source, print what was written and what was left out."""
    args = _options().parse_args(argv)

    from espnet_lite.data.importers.entry import ImportOptions
    from espnet_lite.data.importers.job import import_source
    from espnet_lite.data.importers.split import parse_shares

    report = import_source(
        args.source,
        args.data_dir,
        format_name=args.format,
        options=ImportOptions(
            audio_root=_folder(args.audio_root),
            audio_column=args.audio_column,
            text_column=args.text_column,
            speaker_column=args.speaker_column,
            id_column=args.id_column,
            start_column=args.start_column,
            end_column=args.end_column,
            duration_column=args.duration_column,
            set_column=args.set_column,
            quoting=args.quoting,
            speaker_from=args.speaker_from,
            speaker_pattern=_pattern(args.speaker_pattern),
            transcripts=args.transcripts,
            need_text=not args.no_text,
        ),
        shares=parse_shares(args.split or ()),
        split_by=args.split_by,
        seed=args.seed,
        text_case=args.text_case,
        strip_punctuation=args.strip_punctuation,
        skip_missing=args.skip_missing,
    )
    print(f"{args.source}: read as {report.format}")
    for folder, rows in report.sets.items():
        print(f"{folder}: {_counts(rows)}")
    for note in report.notes:
        print(f"  {note}")
    for reason, places in report.left_out.items():
        print(f"  left out {len(places)} {reason}:")
        for place in places[:SHOWN]:
            print(f"    {place}")
        if len(places) > SHOWN:
            print(f"    … and {len(places) - SHOWN} more")
    return 0


def _options() -> argparse.ArgumentParser:
    options = parser(__doc__)
    options.add_argument("source", type=Path, metavar="SOURCE", help="file or folder to read")
    options.add_argument("--data_dir", type=Path, required=True, help="folder to write")
    options.add_argument(
        "--format", default="auto", help="folder, tsv, csv, hugging_face, nemo, lhotse, or auto"
    )
    options.add_argument(
        "--audio_root", type=Path, help="folder that relative audio paths count from"
    )
    columns = options.add_argument_group("columns of a table, keys of JSON (default: usual names)")
    for kind in ("audio", "text", "speaker", "id", "start", "end", "duration", "set"):
        unit = ", in seconds" if kind in ("start", "end", "duration") else ""
        columns.add_argument(f"--{kind}_column", metavar="NAME", help=f"the column of {kind}{unit}")
    columns.add_argument(
        "--quoting",
        choices=("auto", "csv", "none"),
        default="auto",
        help="of a table; auto: csv in .csv, none in .tsv",
    )
    speakers = options.add_argument_group("speakers")
    speakers.add_argument(
        "--speaker_from",
        choices=("auto", "none", "folder", "top_folder", "name_prefix"),
        default="auto",
        help="auto: what the source says; else by the path of the audio",
    )
    speakers.add_argument(
        "--speaker_pattern",
        metavar="REGEX",
        help="its first group in the audio's path is the speaker",
    )
    words = options.add_argument_group("words")
    words.add_argument("--transcripts", type=Path, help="of a folder of audio: its transcript file")
    words.add_argument("--text_case", choices=("keep", "upper", "lower"), default="keep")
    words.add_argument(
        "--strip_punctuation",
        action="store_true",
        help="make punctuation blanks, but for apostrophes inside of words",
    )
    words.add_argument("--no_text", action="store_true", help="unlabelled speech: read no text")
    options.add_argument(
        "--skip_missing", action="store_true", help="leave out and count what has no audio file"
    )
    sets = options.add_argument_group("sets")
    sets.add_argument(
        "--split",
        nargs="+",
        metavar="NAME=SHARE",
        help="sets to make in DATA_DIR, e.g. train=0.9 dev=0.05 test=0.05; those that the source "
        "has are kept",
    )
    sets.add_argument("--split_by", choices=("speaker", "utterance"), default="speaker")
    sets.add_argument("--seed", type=int, default=1, help="of the split")
    return options


def _folder(path: Path | None) -> Path | None:
    if path is not None and not path.is_dir():
        raise InputError("no such folder", where=f"--audio_root {path}")
    return path


def _pattern(pattern: str | None) -> str | None:
    import re

    if pattern is None:
        return None
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise InputError(
            f"no regular expression: {error}", where=f"--speaker_pattern {pattern}"
        ) from error
    if groups < 1:
        raise InputError(
            "no group, expected one for the speaker, e.g. '^([a-z]+)_'",
            where=f"--speaker_pattern {pattern}",
        )
    return pattern


def _counts(rows: list) -> str:
    """Return one line of counts of a set; hours where the source says how long its audio is."""
    known = [row.seconds for row in rows if row.seconds is not None]
    named = {row.utterance.speaker for row in rows if row.has_speaker}
    unnamed = sum(not row.has_speaker for row in rows)
    counts = [f"{len(rows)} utterances"]
    if known:
        of = "" if len(known) == len(rows) else f" (of {len(known)} whose length is given)"
        counts.append(f"{sum(known) / 3600:.3f} hours{of}")
    if named:
        counts.append(f"{len(named)} speakers")
    if unnamed:
        counts.append(f"{unnamed} utterances without a speaker's name")
    if rows[0].utterance.text is not None:
        counts.append(f"{sum(len(row.utterance.text.split()) for row in rows)} words")
    return ", ".join(counts)


if __name__ == "__main__":
    sys.exit(main())
