"""Pre-train HuBERT on units (stage 5): predict the units of masked frames."""

import sys
from pathlib import Path

from espnet_lite.bin.arguments import parser
from espnet_lite.errors import reports_input_errors


@reports_input_errors
def main(argv: list[str] | None = None) -> int:
    """Train in `--expdir` until done; 0 when done, 75 when a signal asked to stop and be requeued.

    The folder then holds model.safetensors (the average of the best checkpoints), model.json (the
    training record), config.yaml (resolved), train.jsonl, tensorboard/ and run.sh.
    """
    args = parser(__doc__)
    args.add_argument("--config", required=True, help="YAML of model, data and train")
    args.add_argument("--train_dirs", required=True, nargs="+", help="dump folders to train on")
    args.add_argument("--dev_dirs", required=True, nargs="+", help="dump folders to validate on")
    args.add_argument("--units", required=True, help="folder made by make_units, of all of them")
    args.add_argument("--cmvn", help="statistics made by compute_cmvn, where cmvn is global")
    args.add_argument("--init", help="experiment to begin front end and encoder from")
    args.add_argument("--expdir", required=True, help="experiment folder")
    args.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    args.add_argument("--fresh", action="store_true", help="move an experiment aside, start anew")
    args.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parsed = args.parse_args(argv)

    from espnet_lite.tasks.hubert import train_hubert

    command = [sys.executable, "-m", "espnet_lite.bin.train_hubert"]
    return train_hubert(
        config_file=Path(parsed.config),
        overrides=parsed.overrides,
        train_dirs=[Path(folder) for folder in parsed.train_dirs],
        dev_dirs=[Path(folder) for folder in parsed.dev_dirs],
        units_dir=Path(parsed.units),
        cmvn_file=Path(parsed.cmvn) if parsed.cmvn else None,
        initial=Path(parsed.init) if parsed.init else None,
        expdir=Path(parsed.expdir),
        fresh=parsed.fresh,
        device_name=parsed.device,
        command=command + (sys.argv[1:] if argv is None else argv),
    )


if __name__ == "__main__":
    sys.exit(main())
