"""Pack the encoder of a pre-training into one small file, matrices in bf16: what recipes commit."""

import sys
from pathlib import Path

from espnet_lite.bin.arguments import parser
from espnet_lite.errors import reports_input_errors


@reports_input_errors
def main(argv: list[str] | None = None) -> int:
    """Write `--output`, which --pretrained, --init and make_units read, and print its size."""
    args = parser(__doc__)
    args.add_argument("--expdir", required=True, type=Path, help="experiment of train_hubert")
    args.add_argument("--output", required=True, type=Path, help="file, *.safetensors")
    args.add_argument(
        "--keep_heads", action="store_true", help="keep mask vector and heads of units too"
    )
    options = args.parse_args(argv)

    from espnet_lite.models.pretrained import read_pretrained, write_encoder

    weights, config = read_pretrained(options.expdir)
    write_encoder(options.output, weights, config, keep_heads=options.keep_heads)
    size = options.output.stat().st_size
    print(f"{options.output}: {size} bytes ({size / 2**20:.2f} MiB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
