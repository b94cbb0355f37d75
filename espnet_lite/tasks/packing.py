"""From a trained recognizer and a policy to one packed file: as it is, quantized after training, or as its
quantization-aware training left it."""

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from espnet_lite.config import read_yaml, to_plain
from espnet_lite.data.loader import Loader
from espnet_lite.data.utterance import Batch
from espnet_lite.encoders.output import EncoderOutput
from espnet_lite.errors import InputError
from espnet_lite.files import read_lines
from espnet_lite.models.asr import frames_needed
from espnet_lite.nn.ctc_loss import ctc_loss
from espnet_lite.quantize.config import QuantizeConfig
from espnet_lite.quantize.distillation import agreeing
from espnet_lite.quantize.export import export_model
from espnet_lite.quantize.policy import Rule, policy_table, quantize_modules
from espnet_lite.quantize.quantizers import ActivationQuantizer
from espnet_lite.runtime.bits import PackedIntegers
from espnet_lite.runtime.format import mappings_of, packed_bytes, read_packed
from espnet_lite.runtime.pack import PackPolicy, apply_policy, largest_difference
from espnet_lite.runtime.packed_model import DECODER_PREFIX, PackedModel
from espnet_lite.tasks.quantize import (
    calibrate,
    calibration_waveforms,
    load_recognizer,
    read_trained,
)
from espnet_lite.tasks.training import read_sets
from espnet_lite.text.tokenizer import Tokenizer

DEV_BATCH_SECONDS = 60.0


@runtime_checkable
class Recognizer(Protocol):
    """What is asked of a model, trained or packed."""

    def encode(self, waveform: Tensor, waveform_lengths: Tensor) -> EncoderOutput: ...

    def ctc_log_probs(self, encoded: Tensor) -> Tensor: ...


@dataclass
class Source:
    """What is packed.

    Attributes:
        model: in evaluation mode; fake-quantized where `rules` are not none.
        header: of the packed file, without policy, integers and tensors.
        rules: that the model was trained with.
        decoder: tensors of an attention decoder that `model` does not hold.
        where: folder or file it was read from.
    """

    model: nn.Module
    header: dict
    rules: tuple[Rule, ...]
    decoder: dict[str, Tensor]
    where: Path


@dataclass(frozen=True)
class Packed:
    """What is written, and what is to be said of it."""

    tensors: dict[str, Tensor | PackedIntegers]
    header: dict
    table: str | None  # of the policy, where it was put in here


def read_experiment(folder: Path) -> Source:
    """Return the recognizer of an experiment folder of train_asr or quantize_asr.

    Raises:
        InputError: a file is missing or damaged, or it is an experiment of something else.
    """
    weights = folder / "model.safetensors"
    if not weights.is_file():
        fix = "train first: ./run.sh --stage finetune"
        raise InputError("no such file", where=weights, fix=fix)
    plain = read_yaml(folder / "config.yaml").get("model")
    if not isinstance(plain, dict) or not {"front_end", "encoder", "decoder"} <= plain.keys():
        raise InputError(
            "no 'model' with front_end, encoder and decoder, expected a resolved config",
            where=folder / "config.yaml",
            fix="give the experiment folder of train_asr or quantize_asr",
        )
    tokenizer = Tokenizer.load(folder / "tokenizer")
    header = {
        "architecture": {
            **{part: plain[part] for part in ("front_end", "encoder", "decoder")},
            "vocab": tokenizer.vocab,
        },
        "sample_rate": plain["front_end"].get("sample_rate"),
        "tokenizer": tokenizer.to_dict(),
        "record": _read_record(folder / "model.json"),
    }
    return Source(load_recognizer(folder), header, read_trained(folder).rules, {}, folder)


def read_packed_source(path: Path) -> Source:
    """Return the recognizer of a packed file in floating point.

    Raises:
        InputError: what PackedModel.load raises, or it is quantized already.
    """
    header, tensors = read_packed(path)
    if header.get("quantized"):
        raise InputError(
            "is quantized already",
            where=path,
            fix="give the packed model in bf16 or fp32 that it was made from, or its experiment",
        )
    model = PackedModel.from_parts(header, tensors, where=path)
    kept = mappings_of(header, "architecture", "tokenizer", "record", where=path)
    decoder = {
        name: tensor.float() for name, tensor in tensors.items() if name.startswith(DECODER_PREFIX)
    }
    return Source(model, {**kept, "sample_rate": header.get("sample_rate")}, (), decoder, path)


def _read_record(path: Path) -> dict:
    """Return the training record, which JSON's own numbers must do for."""

    def refuse(constant: str):
        raise InputError(f"{constant} is not a number a record may hold", where=path)

    text = "\n".join(read_lines(path, fix="train first: ./run.sh --stage finetune"))
    try:
        return json.loads(text, parse_constant=refuse)
    except json.JSONDecodeError as error:
        raise InputError(f"not JSON: {error}", where=path) from error


def pack(
    source: Source,
    config: QuantizeConfig,
    *,
    name: str,
    where: Path,
    train_dirs: list[Path],
) -> Packed:
    """Return the packed form of `source` by a policy; its model is quantized in place where the policy
    asks for it and training has not done so.

    Args:
        source: what `read_experiment` or `read_packed_source` returned.
        config: conf/quantize_*.yaml.
        name: of the policy.
        where: the file it stands in, for messages.
        train_dirs: dump folders with the utterances that activations are measured on.

    Raises:
        InputError: the policy does not fit the model, or is not the one it was trained with.
    """
    table = None
    if source.rules and config.rules != source.rules:
        raise InputError(
            f"its rules are not those that {source.where} was trained with",
            where=where,
            fix="train with this policy first: quantize_asr, or ./run.sh --stage quantize",
        )
    if config.rules and not source.rules:
        if config.training is not None:
            raise InputError(
                f"{source.where} is in floating point, and this policy has a training",
                where=where,
                fix="train with it first: quantize_asr, or ./run.sh --stage quantize",
            )
        table = _quantize(source, config, where=where, train_dirs=train_dirs)
    has_decoder = bool(source.decoder) or any(
        key.startswith(DECODER_PREFIX) for key in source.model.state_dict()
    )
    if config.decoder and not has_decoder:
        raise InputError(
            "decoder: true, but the model has no attention decoder",
            where=where,
            fix="set decoder: false",
        )
    exported = export_model(source.model)
    policy = PackPolicy(weights=config.weights, decoder=config.decoder)
    tensors = apply_policy({**exported.tensors, **source.decoder}, policy)
    architecture = dict(source.header["architecture"])
    if not config.decoder:
        architecture["decoder"] = None
    header = {
        **source.header,
        "architecture": architecture,
        "policy": _policy(config, name, was_trained=bool(source.rules)),
        "parameters": count_parameters(tensors, exported.quantized),
    }
    if exported.quantized:
        header["quantized"] = exported.quantized
    return Packed(tensors, header, table)


def _quantize(
    source: Source, config: QuantizeConfig, *, where: Path, train_dirs: list[Path]
) -> str:
    """Quantize the model after its training and return the policy as a table."""
    placements = quantize_modules(source.model, config.rules, where=where)
    if any(
        isinstance(module, ActivationQuantizer) and not module.IS_DYNAMIC
        for module in source.model.modules()
    ):
        if not train_dirs:
            raise InputError(
                "this policy quantizes activations, whose scales are measured on speech",
                where="--train_dirs",
                fix="name dump folders, or give a policy of weights alone",
            )
        waveforms = calibration_waveforms(
            read_sets(train_dirs, need_text=False),
            count=config.calibration_utterances,
            sample_rate=source.header["sample_rate"],
        )
        calibrate(source.model, waveforms, where=where)
    return policy_table(source.model, placements)


def _policy(config: QuantizeConfig, name: str, *, was_trained: bool) -> dict[str, object]:
    """Return what the header says of the policy."""
    policy = {"name": name, "weights": config.weights, "decoder": config.decoder}
    if config.rules:
        policy["method"] = "training" if was_trained else "post-training"
        policy["rules"] = to_plain(config.rules)
    return policy


def count_parameters(tensors: dict[str, Tensor | PackedIntegers], quantized: dict) -> int:
    """Return the trained weights in the file: no statistics of CMVN and BatchNorm, and of quantized
    modules only weights and biases."""
    measured = (".cmvn.", ".running_mean", ".running_var")
    of_quantizers = tuple(f"{name}." for name in quantized)
    return sum(
        tensor.numel()
        for name, tensor in tensors.items()
        if not any(part in name for part in measured)
        and (
            not name.startswith(of_quantizers)
            or (name.rpartition(".")[0] in quantized and not name.endswith(".weight_scale"))
        )
    )


@dataclass(frozen=True)
class Sizes:
    """Bytes of a packed file, and of the same sections in fp32 with the same header otherwise."""

    packed: int
    fp32: int

    @property
    def ratio(self) -> float:
        return self.fp32 / self.packed


def sizes(source: Source, packed: Packed) -> Sizes:
    """Return what the packing saves; the fp32 file has the latent weights of a trained policy."""
    policy = PackPolicy(
        weights="fp32", decoder=packed.header["architecture"]["decoder"] is not None
    )
    latent = {
        name: tensor
        for name, tensor in {**source.model.state_dict(), **source.decoder}.items()
        if "_quantizer." not in name and not _is_of_attention(name, packed.header)
    }
    header = {key: value for key, value in packed.header.items() if key != "quantized"}
    fp32 = packed_bytes(apply_policy(latent, policy), header)
    return Sizes(len(packed_bytes(packed.tensors, packed.header)), len(fp32))


def _is_of_attention(name: str, header: dict) -> bool:
    """Return whether a tensor of a fake-quantized model is a number of attention's quantizers."""
    return any(
        name.startswith(f"{module}.")
        for module, form in header.get("quantized", {}).items()
        if "operands" in form
    )


@torch.no_grad()
def dev_quality(
    model: Recognizer, reference: Recognizer, batches: Iterable[Batch]
) -> dict[str, float]:
    """Return `agreement`, the part of frames whose most probable token is the reference's, and
    `loss_ctc` in nats an utterance, those too short for their tokens left out of the sum: as validation
    of a training has them.

    Args:
        model: whose quality it is.
        reference: in floating point.
        batches: with tokens.
    """
    same = frames = count = 0
    loss = 0.0
    for batch in batches:
        output = model.encode(batch.waveform, batch.waveform_lengths)
        log_probs = model.ctc_log_probs(output.encoded)
        theirs = reference.encode(batch.waveform, batch.waveform_lengths)
        agreed, valid = agreeing(log_probs, reference.ctc_log_probs(theirs.encoded), output.lengths)
        losses = ctc_loss(log_probs, output.lengths, batch.tokens.clamp(min=0), batch.token_lengths)
        alignable = output.lengths >= frames_needed(batch.tokens, batch.token_lengths)
        loss += torch.where(alignable, losses, 0.0).sum().item()
        same, frames, count = same + int(agreed), frames + int(valid), count + len(batch.ids)
    return {"agreement": round(same / max(frames, 1), 6), "loss_ctc": round(loss / count, 6)}


def dev_batches(source: Source, dev_dirs: list[Path]) -> Iterable[Batch]:
    """Return the batches of dump folders, from short to long utterances."""
    loader = Loader(
        read_sets(dev_dirs),
        Tokenizer.from_dict(source.header["tokenizer"]),
        sample_rate=source.header["sample_rate"],
        batch_seconds=DEV_BATCH_SECONDS,
        seed=0,
        shuffle=False,
    )
    return loader.batches(0)


def with_quality(packed: Packed, quality: dict[str, float]) -> Packed:
    """Return the packed form whose record has this quality in the place of the training's."""
    record = dict(packed.header["record"])
    record["dev"] = quality
    return dataclasses.replace(packed, header={**packed.header, "record": record})


def report(source: Source, packed: Packed, *, where: Path) -> str:
    """Return bytes, ratio, parameters, and how far the packed model is from the one it was made of, in
    one line; building the model checks every shape."""
    found = PackedModel.from_parts(packed.header, packed.tensors, where=where)
    size = sizes(source, packed)
    difference = largest_difference(found, source.model, sample_rate=found.sample_rate)
    of_what = "the fake-quantized model" if "quantized" in packed.header else "fp32"
    return (
        f"{size.packed} bytes ({size.packed / 2**20:.2f} MiB), {size.ratio:.2f} times smaller than "
        f"fp32 ({size.fp32} bytes), {packed.header['parameters']} parameters; log-probabilities "
        f"differ by at most {difference:.2e} from {of_what} on a synthetic waveform"
    )
