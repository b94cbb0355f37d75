"""Write one row of results as JSON and draw RESULTS.md from all rows."""

import sys
from pathlib import Path

from espnet_lite.bin.arguments import parser
from espnet_lite.errors import InputError, reports_input_errors


@reports_input_errors
def main(argv: list[str] | None = None) -> int:
    arguments = parser(__doc__)
    arguments.add_argument("--row", required=True, help="name of the row: results/ROW.json")
    arguments.add_argument("--model", type=Path, required=True, help="packed model, X.esp")
    arguments.add_argument(
        "--decode_dirs", nargs="+", required=True, metavar="SET=DIR", help="decoded, scored sets"
    )
    arguments.add_argument("--results_dir", type=Path, required=True, help="the recipe's folder")
    arguments.add_argument(
        "--dev_sets", nargs="+", default=["dev"], help="the first one chooses the headline row"
    )
    arguments.add_argument("--title", help="default: the last two parts of --results_dir")
    args = arguments.parse_args(argv)

    from espnet_lite.files import write_text
    from espnet_lite.runtime.format import file_sha256, read_header
    from espnet_lite.score.results import build_row, read_rows, row_text, with_earlier_sets
    from espnet_lite.score.results_folder import draw, write

    header = read_header(args.model)
    if not isinstance(header.get("record"), dict):
        raise InputError("the header has no training record", where=args.model)
    folder = args.results_dir
    row = build_row(
        args.row,
        title=args.title or "/".join(folder.resolve().parts[-2:]),
        model=args.model,
        sha256=file_sha256(args.model),
        parameters=header.get("parameters"),
        bits=header.get("policy", {}).get("name"),
        record=header["record"],
        decode_dirs=_decode_dirs(args.decode_dirs),
        dev_sets=args.dev_sets,
        results_dir=folder,
    )
    row_path = folder / "results" / f"{args.row}.json"
    row = with_earlier_sets(row, row_path)
    # Everything is read and drawn before anything is written: a fault in another row leaves all.
    others = read_rows(folder, but=row_path)
    rows = dict(sorted({**others, args.row: row}.items()))
    drawn = draw(folder, rows)
    write_text(row_path, row_text(row))
    write(folder, drawn)
    print(f"{row_path}, {folder / 'RESULTS.md'}: {len(rows)} rows")
    return 0


def _decode_dirs(given: list[str]) -> dict[str, Path]:
    folders: dict[str, Path] = {}
    for item in given:
        name, equals, folder = item.partition("=")
        if not (name and equals and folder):
            raise InputError(f"'{item}', expected SET=DIR", where="--decode_dirs")
        if name in folders:
            raise InputError(f"set '{name}' is given twice", where="--decode_dirs")
        folders[name] = Path(folder)
    return folders


if __name__ == "__main__":
    sys.exit(main())
