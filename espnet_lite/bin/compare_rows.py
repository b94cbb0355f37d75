"""Compare two rows of results, or two groups of them (seeds): paired bootstrap over speakers."""

import sys
from pathlib import Path

from espnet_lite.bin.arguments import parser
from espnet_lite.errors import InputError, reports_input_errors


@reports_input_errors
def main(argv: list[str] | None = None) -> int:
    """Print both error rates and their difference with 95 % intervals."""
    args = parser(__doc__)
    args.add_argument("--first", required=True, nargs="+", type=Path, help="results/ROW.json")
    args.add_argument("--second", required=True, nargs="+", type=Path, help="results/ROW.json")
    args.add_argument("--set", required=True, dest="set_name", help="set that all were scored on")
    args.add_argument("--draws", type=int, default=10000)
    args.add_argument("--seed", type=int, default=0)
    options = args.parse_args(argv)
    if options.draws < 1:
        raise InputError(f"{options.draws}, expected 1 or more", where="--draws")

    import numpy as np

    from espnet_lite.score.bootstrap import paired_difference

    groups = [
        [_speakers(path, options.set_name) for path in paths]
        for paths in (options.first, options.second)
    ]
    tokens = {name: count for name, (_, count) in groups[0][0].items()}
    for paths, group in zip((options.first, options.second), groups, strict=True):
        for path, speakers in zip(paths, group, strict=True):
            if {name: count for name, (_, count) in speakers.items()} != tokens:
                raise InputError(
                    f"'{options.set_name}' has other speakers or words than in {options.first[0]}",
                    where=path,
                )
    errors = [
        np.mean([[speakers[name][0] for name in tokens] for speakers in group], axis=0)
        for group in groups
    ]
    found = paired_difference(
        *errors, tokens=list(tokens.values()), draws=options.draws, seed=options.seed
    )
    print(f"{options.set_name}, {len(tokens)} speakers, {options.draws} draws; percent [95 %]")
    print(f"first       {found.first}")
    print(f"second      {found.second}")
    print(f"difference  {found.difference}  (other sign in {found.improbability:.4f} of the draws)")
    return 0


def _speakers(path: Path, set_name: str) -> dict[str, list[int]]:
    """Return `{speaker: [errors, tokens]}` of a row."""
    from espnet_lite.score.results import check_row, headline_kind, read_json

    row = read_json(path)
    check_row(row, where=path)
    if set_name not in row["scores"]:
        known = ", ".join(row["scores"])
        raise InputError(f"no scores of '{set_name}', there are: {known}", where=path)
    speakers = row["scores"][set_name][headline_kind(row)].get("speakers")
    if not speakers:
        raise InputError(
            "the row has no counts by speaker",
            where=path,
            fix="score again: ./run.sh --stage score",
        )
    return speakers


if __name__ == "__main__":
    sys.exit(main())
