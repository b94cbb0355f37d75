"""Compare word boundaries with those of other TextGrids of the same speech: median error and more."""

import json
import sys
from pathlib import Path

from espnet_lite.bin.arguments import parser
from espnet_lite.errors import InputError, reports_input_errors


@reports_input_errors
def main(argv: list[str] | None = None) -> int:
    """Print a table of starts, ends and both; write it as JSON with --output."""
    args = parser(__doc__)
    args.add_argument(
        "--alignment", required=True, type=Path, help="folder with UTTERANCE.TextGrid below"
    )
    args.add_argument("--reference", required=True, type=Path, help="likewise, e.g. of MFA")
    args.add_argument("--tier", default="words", help="of words, in both")
    args.add_argument("--output", type=Path, help="JSON file to write")
    options = args.parse_args(argv)

    import numpy as np

    from espnet_lite.files import write_text
    from espnet_lite.units.boundaries import boundary_errors, errors_to_plain
    from espnet_lite.units.textgrid import find_textgrids, read_phones

    found = find_textgrids([options.alignment])
    reference = find_textgrids([options.reference])
    both = [name for name in found if name in reference]
    if not both:
        raise InputError(
            f"none of its {len(found)} is in {options.reference}", where=options.alignment
        )
    errors, other = [], []
    for name in both:
        tiers = [read_phones(paths[name], tier=options.tier) for paths in (found, reference)]
        one = boundary_errors(*tiers)
        if one is None:
            other.append(name)
        else:
            errors.append(one)
    if not any(len(one.starts) for one in errors):
        raise InputError(
            f"none of {len(both)} utterances has the words of {options.reference}",
            where=options.alignment,
        )
    starts = np.concatenate([one.starts for one in errors])
    ends = np.concatenate([one.ends for one in errors])
    rows = {"starts": starts, "ends": ends, "all": np.concatenate([starts, ends])}
    plain = {name: errors_to_plain(values) for name, values in rows.items()}
    print(
        f"{options.alignment}: {len(starts):,} words of {len(errors)} utterances; "
        f"{len(other)} have other words than the reference, {len(found) - len(both)} no reference"
    )
    columns = list(plain["all"])
    print(f"| boundaries | {' | '.join(column.replace('_', ' ') for column in columns)} |")
    print(f"| --- |{' ---: |' * len(columns)}")
    for name, row in plain.items():
        print(f"| {name} | {' | '.join(str(row[column]) for column in columns)} |")
    if options.output is not None:
        plain |= {"words": len(starts), "utterances": len(errors), "other_words": other}
        write_text(options.output, json.dumps(plain, indent=1, ensure_ascii=False) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
