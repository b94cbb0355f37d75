"""Pack a trained recognizer into one file: weights, architecture, tokenizer, record (stage 7)."""

import json
import sys
from pathlib import Path

from espnet_lite.bin.arguments import parser
from espnet_lite.errors import InputError, reports_input_errors


@reports_input_errors
def main(argv: list[str] | None = None) -> int:
    """Write `--output` and print its size and what the packing changed; return 0."""
    args = parser(__doc__)
    args.add_argument("--expdir", required=True, type=Path, help="experiment folder of train_asr")
    args.add_argument("--config", required=True, type=Path, help="YAML, conf/quantize_*.yaml")
    args.add_argument("--output", required=True, type=Path, help="packed model to write (*.esp)")
    options = args.parse_args(argv)

    from espnet_lite.config import load_config, to_plain
    from espnet_lite.runtime.format import write_packed
    from espnet_lite.runtime.pack import PackPolicy, apply_policy

    policy = load_config(options.config, PackPolicy)
    weights = _read_weights(options.expdir / "model.safetensors")
    if policy.decoder and not any(name.startswith("decoder.") for name in weights):
        raise InputError(
            "decoder: true, but the model has no attention decoder",
            where=options.config,
            fix="set decoder: false",
        )
    tensors = apply_policy(weights, policy)
    header = _make_header(options.expdir, policy=to_plain(policy), with_decoder=policy.decoder)
    header["parameters"] = _count_parameters(tensors)
    report = _report(header, weights, tensors, where=options.expdir)
    write_packed(options.output, tensors, header)
    print(f"{options.output}: {report}")
    return 0


def _read_weights(path: Path) -> dict:
    """Return the averaged fp32 weights of an experiment."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise InputError("no such file", where=path, fix="train first: ./run.sh --stage finetune")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise InputError(
            f"not a readable safetensors file: {error}",
            where=path,
            fix="train again: ./run.sh --stage finetune --fresh",
        ) from error


def _make_header(expdir: Path, *, policy: dict, with_decoder: bool) -> dict:
    """Return the packed header (without its list of tensors) from what an experiment keeps."""
    from espnet_lite.config import read_yaml
    from espnet_lite.text.tokenizer import Tokenizer

    model = read_yaml(expdir / "config.yaml").get("model")
    if not isinstance(model, dict) or not {"front_end", "encoder", "decoder"} <= model.keys():
        raise InputError(
            "no 'model' with front_end, encoder and decoder, expected a resolved config",
            where=expdir / "config.yaml",
            fix="give the experiment folder of train_asr",
        )
    tokenizer = Tokenizer.load(expdir / "tokenizer")
    return {
        "architecture": {
            "front_end": model["front_end"],
            "encoder": model["encoder"],
            "decoder": model["decoder"] if with_decoder else None,
            "vocab": tokenizer.vocab,
        },
        "sample_rate": model["front_end"].get("sample_rate"),
        "policy": policy,
        "tokenizer": tokenizer.to_dict(),
        "record": _read_record(expdir / "model.json"),
    }


def _count_parameters(tensors: dict) -> int:
    """Return the trained numbers in the file: all but the statistics of CMVN and of BatchNorm."""
    measured = (".cmvn.", ".running_mean", ".running_var")
    return sum(
        tensor.numel()
        for name, tensor in tensors.items()
        if not any(part in name for part in measured)
    )


def _read_record(path: Path) -> dict:
    from espnet_lite.files import read_lines

    def refuse(constant: str):
        raise InputError(f"{constant} is not a number a record may hold", where=path)

    text = "\n".join(read_lines(path, fix="train first: ./run.sh --stage finetune"))
    try:
        return json.loads(text, parse_constant=refuse)
    except json.JSONDecodeError as error:
        raise InputError(f"not JSON: {error}", where=path) from error


def _report(header: dict, weights: dict, tensors: dict, *, where: Path) -> str:
    """Return bytes, ratio, parameters and difference; building both models checks every shape."""
    from espnet_lite.runtime.format import packed_bytes
    from espnet_lite.runtime.pack import largest_difference
    from espnet_lite.runtime.packed_model import PackedModel

    fp32 = {name: weights[name] for name in tensors}
    packed = PackedModel.from_parts(header, tensors, where=where)
    plain = PackedModel.from_parts(header, fp32, where=where)
    size, fp32_size = len(packed_bytes(tensors, header)), len(packed_bytes(fp32, header))
    return (
        f"{size} bytes ({size / 2**20:.2f} MiB), {fp32_size / size:.2f} times smaller than fp32 "
        f"({fp32_size} bytes), {header['parameters']} parameters; log-probabilities differ by at most "
        f"{largest_difference(packed, plain):.2e} from fp32 on a synthetic waveform"
    )


if __name__ == "__main__":
    sys.exit(main())
