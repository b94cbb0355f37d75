"""Pack a trained recognizer into one file: weights, architecture, tokenizer, record (stage 7).

The policy (conf/quantize_*.yaml) says how. Without rules the weights are stored as they are, in bf16 or
fp32. With rules and no training they are quantized here, from the recognizer in floating point: scales
of activations are measured on a few utterances of --train_dirs. With rules and a training, --expdir is
what quantize_asr left.
"""

import sys
from pathlib import Path

from espnet_lite.bin.arguments import parser
from espnet_lite.errors import InputError, reports_input_errors


@reports_input_errors
def main(argv: list[str] | None = None) -> int:
    """Write `--output` and print its size and what the packing changed; return 0."""
    args = parser(__doc__)
    args.add_argument("--expdir", type=Path, help="experiment folder of train_asr or quantize_asr")
    args.add_argument("--model", type=Path, help="instead: a packed model in bf16 or fp32 (*.esp)")
    args.add_argument("--config", required=True, type=Path, help="YAML, conf/quantize_*.yaml")
    args.add_argument("--output", required=True, type=Path, help="packed model to write (*.esp)")
    args.add_argument("--train_dirs", nargs="+", type=Path, default=[], help="dump folders")
    args.add_argument(
        "--dev_dirs",
        nargs="+",
        type=Path,
        default=[],
        help="dump folders: CTC loss, and frames agreeing with floating point, of what is quantized "
        "here; both go into the record",
    )
    args.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    options = args.parse_args(argv)
    if (options.expdir is None) == (options.model is None):
        raise InputError("expected one of them", where="--expdir, --model")

    from espnet_lite.config import load_config
    from espnet_lite.quantize.config import QuantizeConfig
    from espnet_lite.runtime.format import write_packed
    from espnet_lite.tasks import packing

    config = load_config(options.config, QuantizeConfig, options.overrides)
    read = packing.read_packed_source if options.expdir is None else packing.read_experiment
    path = options.expdir or options.model
    source = read(path)
    packed = packing.pack(
        source,
        config,
        name=options.config.stem.removeprefix("quantize_"),
        where=options.config,
        train_dirs=options.train_dirs,
    )
    if packed.table is not None:
        print(packed.table)
        if options.dev_dirs:
            batches = packing.dev_batches(source, options.dev_dirs)
            quality = packing.dev_quality(source.model, read(path).model, batches)
            packed = packing.with_quality(packed, quality)
            print(
                f"dev CTC loss {quality['loss_ctc']:.4f} nats an utterance, "
                f"{100 * quality['agreement']:.2f} % of the frames as in floating point"
            )
    line = packing.report(source, packed, where=path)
    write_packed(options.output, packed.tensors, packed.header)
    print(f"{options.output}: {line}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
