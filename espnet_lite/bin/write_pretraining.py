"""Keep what RESULTS.md says of a pre-training: results/pretraining/NAME.json (end of stage 5)."""

import json
import sys
from pathlib import Path

from espnet_lite.bin.arguments import parser
from espnet_lite.errors import reports_input_errors


@reports_input_errors
def main(argv: list[str] | None = None) -> int:
    """Write the record; the table is drawn when a row is scored."""
    arguments = parser(__doc__)
    arguments.add_argument("--name", required=True, help="of the pre-training")
    arguments.add_argument("--expdir", required=True, type=Path, help="folder of train_hubert")
    arguments.add_argument("--units", required=True, type=Path, help="folder of make_units")
    arguments.add_argument("--phones", type=Path, help="JSON of score_units, where there is one")
    arguments.add_argument("--results_dir", type=Path, required=True, help="the recipe's folder")
    args = arguments.parse_args(argv)

    from espnet_lite.files import write_text
    from espnet_lite.score.pretraining import FOLDER, build_pretraining
    from espnet_lite.score.results import read_json

    known = build_pretraining(
        args.name,
        record=read_json(args.expdir / "model.json", fix="pre-train: ./run.sh --stage pretrain"),
        units=read_json(args.units / "units.json", fix="make units: ./run.sh --stage units"),
        phones=read_json(args.phones) if args.phones else None,
    )
    path = args.results_dir / FOLDER / f"{args.name}.json"
    write_text(path, json.dumps(known, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
