"""Make an experiment folder of a packed recognizer in bf16 or fp32: a teacher for quantize_asr, for one."""

import sys
from pathlib import Path

from espnet_lite.bin.arguments import parser
from espnet_lite.errors import reports_input_errors


@reports_input_errors
def main(argv: list[str] | None = None) -> int:
    """Write `--expdir`, as train_asr left it but for the rounding to bf16, and print its size; return 0."""
    args = parser(__doc__)
    args.add_argument("--model", required=True, type=Path, help="packed model (*.esp)")
    args.add_argument(
        "--config", required=True, type=Path, help="conf/train_asr*.yaml that it was trained by"
    )
    args.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    args.add_argument("--expdir", required=True, type=Path, help="experiment folder to write")
    options = args.parse_args(argv)

    from espnet_lite.tasks.unpacking import unpack_recognizer

    model = unpack_recognizer(
        options.model,
        config_file=options.config,
        overrides=options.overrides,
        expdir=options.expdir,
    )
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{options.expdir}: {parameters / 1e6:.2f} M parameters")
    return 0


if __name__ == "__main__":
    sys.exit(main())
