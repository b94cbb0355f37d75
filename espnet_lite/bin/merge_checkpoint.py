"""Make one file of the weights of a sharded checkpoint (train.sharding: fsdp)."""

import sys
from pathlib import Path

from espnet_lite.bin.arguments import parser
from espnet_lite.errors import reports_input_errors


@reports_input_errors
def main(argv: list[str] | None = None) -> int:
    """Write `--output`, as the model.safetensors of any other checkpoint, and print its size."""
    args = parser(__doc__)
    args.add_argument(
        "--checkpoint", required=True, type=Path, help="folder EXPDIR/checkpoints/update_N"
    )
    args.add_argument("--output", required=True, type=Path, help="file, *.safetensors")
    options = args.parse_args(argv)

    from espnet_lite.train.checkpoint import save_weights
    from espnet_lite.train.sharded_checkpoint import merged_weights

    weights = merged_weights(options.checkpoint)
    save_weights(options.output, weights)
    size = options.output.stat().st_size
    print(f"{options.output}: {len(weights)} tensors, {size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
