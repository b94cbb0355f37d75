"""Train a recognizer in few bits (stage 7): quantization-aware training with distillation.

From a trained recognizer (--teacher); or, without a teacher, on a pre-trained encoder that
quantize_encoder has brought to these bits (--pretrained, --asr_config, --tokenizer). It is then trained as
--asr_config says, and of --config rules, calibration_utterances and training.dropout count.
"""

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
    args.add_argument("--teacher", type=Path, help="experiment folder of the trained recognizer")
    args.add_argument("--pretrained", type=Path, help="instead: a pre-trained encoder")
    args.add_argument("--asr_config", type=Path, help="with --pretrained: conf/train_asr*.yaml")
    args.add_argument("--tokenizer", type=Path, help="with --pretrained: made by make_tokens")
    args.add_argument(
        "--asr_set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="with --pretrained: a value of --asr_config, e.g. train.updates=500",
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
        help="a value of --config, e.g. training.dropout=0.1",
    )
    args.add_argument("--fresh", action="store_true", help="move experiments aside, start anew")
    args.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parsed = args.parse_args(argv)

    if (parsed.teacher is None) == (parsed.pretrained is None):
        args.error("give either --teacher or --pretrained")
    if parsed.pretrained is not None and None in (parsed.asr_config, parsed.tokenizer):
        args.error("--pretrained needs --asr_config and --tokenizer")
    if parsed.teacher is not None:
        of_pretrained = {
            "--asr_config": parsed.asr_config,
            "--tokenizer": parsed.tokenizer,
            "--asr_set": parsed.asr_set,
        }
        for option, value in of_pretrained.items():
            if value:
                args.error(
                    f"{option} is for --pretrained: --teacher has a configuration and tokens"
                )

    from espnet_lite.tasks.quantize import train_quantized
    from espnet_lite.tasks.quantize_finetune import finetune_quantized

    given = {
        "config_file": parsed.config,
        "overrides": parsed.overrides,
        "train_dirs": parsed.train_dirs,
        "dev_dirs": parsed.dev_dirs,
        "expdir": parsed.expdir,
        "fresh": parsed.fresh,
        "device_name": parsed.device,
        "command": command_line("quantize_asr", argv),
    }
    if parsed.teacher is not None:
        return train_quantized(teacher_dir=parsed.teacher, **given)
    return finetune_quantized(
        asr_config_file=parsed.asr_config,
        asr_overrides=parsed.asr_set,
        pretrained=parsed.pretrained,
        tokenizer_dir=parsed.tokenizer,
        **given,
    )


if __name__ == "__main__":
    sys.exit(main())
