"""Bring a pre-trained encoder to few bits before it is fine-tuned, on speech without transcripts.

It learns from its own hidden states: of --config, training.distillation and training.train.criterion do not
count.
"""

import sys
from pathlib import Path

from espnet_lite.bin.arguments import command_line, parser
from espnet_lite.errors import reports_input_errors


@reports_input_errors
def main(argv: list[str] | None = None) -> int:
    """Train all steps of the plan until done; 0 when done, 75 when a signal asked to stop.

    `--expdir` is then what quantize_asr takes as --pretrained.
    """
    args = parser(__doc__)
    args.add_argument("--config", required=True, type=Path, help="YAML, conf/quantize_*.yaml")
    args.add_argument(
        "--pretrained", required=True, type=Path, help="experiment folder or file of a pre-training"
    )
    for name, purpose in (("train_dirs", "train on"), ("dev_dirs", "validate on")):
        args.add_argument(
            f"--{name}", required=True, nargs="+", type=Path, help=f"dump folders to {purpose}"
        )
    args.add_argument("--expdir", required=True, type=Path, help="experiment folder")
    args.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="a value of --config, e.g. training.batch_seconds=40",
    )
    args.add_argument("--fresh", action="store_true", help="move experiments aside, start anew")
    args.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parsed = args.parse_args(argv)

    from espnet_lite.tasks.quantize_encoder import quantize_encoder

    return quantize_encoder(
        config_file=parsed.config,
        overrides=parsed.overrides,
        pretrained=parsed.pretrained,
        train_dirs=parsed.train_dirs,
        dev_dirs=parsed.dev_dirs,
        expdir=parsed.expdir,
        fresh=parsed.fresh,
        device_name=parsed.device,
        command=command_line("quantize_encoder", argv),
    )


if __name__ == "__main__":
    sys.exit(main())
