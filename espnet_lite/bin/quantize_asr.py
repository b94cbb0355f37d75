"""Train a recognizer in few bits (stage 7): quantization-aware training with distillation."""

import sys
from pathlib import Path

from espnet_lite.bin.arguments import command_line, parser
from espnet_lite.errors import reports_input_errors


@reports_input_errors
def main(argv: list[str] | None = None) -> int:
    """Train all steps of the plan until done; 0 when done, 75 when a signal asked to stop.

    `--expdir` then holds what train_asr's experiments hold; the policy is in config.yaml. Steps before
    the last have folders beside it, named `EXPDIR_step_1` and so on.
    """
    args = parser(__doc__)
    args.add_argument("--config", required=True, type=Path, help="YAML, conf/quantize_*.yaml")
    args.add_argument(
        "--teacher", required=True, type=Path, help="experiment folder of the trained recognizer"
    )
    for name, purpose in (("train_dirs", "train on"), ("dev_dirs", "validate on")):
        args.add_argument(
            f"--{name}", required=True, nargs="+", type=Path, help=f"dump folders to {purpose}"
        )
    args.add_argument("--expdir", required=True, type=Path, help="experiment folder")
    args.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    args.add_argument("--fresh", action="store_true", help="move experiments aside, start anew")
    args.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parsed = args.parse_args(argv)

    from espnet_lite.tasks.quantize import train_quantized

    return train_quantized(
        config_file=parsed.config,
        overrides=parsed.overrides,
        teacher_dir=parsed.teacher,
        train_dirs=parsed.train_dirs,
        dev_dirs=parsed.dev_dirs,
        expdir=parsed.expdir,
        fresh=parsed.fresh,
        device_name=parsed.device,
        command=command_line("quantize_asr", argv),
    )


if __name__ == "__main__":
    sys.exit(main())
