"""Pre-train HuBERT on units (stage 5): predict the units of masked frames."""

import sys
from pathlib import Path

from espnet_lite.bin.arguments import add_training_options, command_line, parser
from espnet_lite.errors import reports_input_errors


@reports_input_errors
def main(argv: list[str] | None = None) -> int:
    """Train in `--expdir` until done; 0 when done, 75 when a signal asked to stop and be requeued.

    The folder then holds model.safetensors (the average of the best checkpoints), model.json (the
    training record), config.yaml (resolved), train.jsonl, tensorboard/ and run.sh.
    """
    args = parser(__doc__)
    add_training_options(args)
    args.add_argument(
        "--units", required=True, type=Path, help="folder made by make_units, of all of them"
    )
    args.add_argument("--init", type=Path, help="experiment to begin front end and encoder from")
    parsed = args.parse_args(argv)

    from espnet_lite.tasks.hubert import train_hubert

    return train_hubert(
        config_file=parsed.config,
        overrides=parsed.overrides,
        train_dirs=parsed.train_dirs,
        dev_dirs=parsed.dev_dirs,
        cmvn_file=parsed.cmvn,
        units_dir=parsed.units,
        initial=parsed.init,
        expdir=parsed.expdir,
        fresh=parsed.fresh,
        device_name=parsed.device,
        command=command_line("train_hubert", argv),
    )


if __name__ == "__main__":
    sys.exit(main())
