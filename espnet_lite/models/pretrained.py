"""The front end and encoder of a pre-training: read, written as one small file, put into a model.

They come from an experiment folder (config.yaml, model.safetensors), from one safetensors file whose
metadata describes them: the form in which recipes commit a pre-trained encoder, or from a packed recognizer in
floating point.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from espnet_lite.config import from_plain, read_yaml, to_plain
from espnet_lite.errors import InputError
from espnet_lite.files import atomic_path
from espnet_lite.runtime.format import read_packed

PARTS = ("front_end", "encoder")
_PREFIXES = tuple(f"{part}." for part in PARTS)
_METADATA_KEY = "config"


def read_pretrained(path: Path | str) -> tuple[dict[str, Tensor], dict]:
    """Return weights and plain model configuration of a pre-training.

    Args:
        path: experiment folder, a file that `write_encoder` wrote, or a packed recognizer (*.esp).

    Returns:
        Weights by name, floating point as fp32, and the configuration with at least `front_end`
        and `encoder`.

    Raises:
        InputError: no such folder or file, a training that is not done, no configuration in it, a
            packed file of integers.
    """
    path = Path(path)
    if path.suffix == ".esp":
        weights, config = _read_packed(path)
    elif path.is_dir():
        config = read_yaml(path / "config.yaml").get("model")
        weights, _ = _read_safetensors(path / "model.safetensors", fix="train it to its end")
    else:
        weights, metadata = _read_safetensors(path, fix="give an experiment folder or such a file")
        try:
            config = json.loads(metadata.get(_METADATA_KEY, "null"))
        except ValueError as error:
            raise _undescribed(path) from error
    if not isinstance(config, dict) or not all(isinstance(config.get(p), dict) for p in PARTS):
        raise _undescribed(path)
    return weights, config


def write_encoder(
    path: Path | str,
    weights: Mapping[str, Tensor],
    config: Mapping[str, object],
    *,
    keep_heads: bool = False,
) -> None:
    """Write front end and encoder as one file that `read_pretrained` reads; matrices become bf16.

    Args:
        path: the file, whole or absent.
        weights: of the pre-training, as in its model.safetensors.
        config: the plain configuration of its model.
        keep_heads: True keeps all weights, so that a pre-training can go on from the file.

    Raises:
        InputError: the disk is full or the folder cannot be written.
    """
    kept = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in sorted(weights.items())
        if keep_heads or name.startswith(_PREFIXES)
    }
    stored = {
        name: tensor.bfloat16() if tensor.is_floating_point() and tensor.ndim > 1 else tensor
        for name, tensor in kept.items()
    }
    described = {key: config[key] for key in (config if keep_heads else PARTS)}
    content = save(stored, metadata={_METADATA_KEY: json.dumps(described, sort_keys=True)})
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)  # not save_file: its full disk is no OSError


def load_pretrained_weights(
    model: nn.Module,
    weights: Mapping[str, Tensor],
    *,
    where: Path,
    pretrained_config: Mapping[str, object] | None = None,
) -> None:
    """Copy front end and encoder of a pre-training into `model`; what else is in it stays.

    Buffers come too: fine-tuning keeps the mean and variance of the features that the encoder
    learned from. Dropout and SpecAugment may differ.

    Args:
        model: has `front_end` and `encoder`, and `config` with those of its configuration.
        weights: of the pre-training; mask embedding and heads are left out.
        where: the folder or file they come from, for messages.
        pretrained_config: plain configuration of the pre-training's model, compared first: it
            tells more than shapes do, and heads or activations have none.

    Raises:
        InputError: another architecture: names the keys with both values, or the first weight
            that is missing, unexpected or of another shape.
    """
    if pretrained_config is not None:
        compare_architectures(to_plain(model.config), pretrained_config, model.config, where=where)
    found = {name: tensor for name, tensor in weights.items() if name.startswith(_PREFIXES)}
    expected = {
        name: tensor for name, tensor in model.state_dict().items() if name.startswith(_PREFIXES)
    }
    for name in expected:
        if name not in found:
            raise _unfit(f"no weight '{name}', which the model has", where)
    for name in found:
        if name not in expected:
            raise _unfit(f"weight '{name}', which the model does not have", where)
    for name, tensor in expected.items():
        if found[name].shape != tensor.shape:
            shapes = f"{list(found[name].shape)}, the model's is {list(tensor.shape)}"
            raise _unfit(f"weight '{name}' has the shape {shapes}", where)
    model.load_state_dict(found, strict=False)


def _read_safetensors(path: Path, *, fix: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return tensors, floating point as fp32, and metadata."""
    if not path.is_file():
        raise InputError("no such file", where=path, fix=fix)
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise InputError(f"not a safetensors file ({error})", where=path, fix=fix) from error
    return {name: _single(tensor) for name, tensor in tensors.items()}, metadata


def _single(tensor: Tensor) -> Tensor:
    return tensor.to(torch.float32) if tensor.is_floating_point() else tensor


def _read_packed(path: Path) -> tuple[dict[str, Tensor], object]:
    header, tensors = read_packed(path)
    if header.get("quantized"):
        raise InputError(
            "is quantized, a training begins in floating point",
            where=path,
            fix="give the packed model in bf16 or fp32 that it was made from, or its experiment",
        )
    return {name: _single(tensor) for name, tensor in tensors.items()}, header.get("architecture")


def _undescribed(path: Path) -> InputError:
    return InputError(
        "describes no front_end and encoder, expected a pre-training",
        where=path,
        fix="give the experiment folder of a pre-training, or a file that write_encoder wrote",
    )


def compare_architectures(ours: dict, theirs: Mapping, config: object, *, where: Path) -> None:
    """Raise unless front end and encoder of a configuration are those of trained weights.

    Takes what `architecture_differences` takes.

    Raises:
        InputError: names all keys whose difference makes another architecture.
    """
    differing = architecture_differences(ours, theirs, config, where=where)
    if differing:
        what = "was trained with another architecture than the model's"
        raise _unfit(f"{what}: {', '.join(differing)}", where)


def architecture_differences(
    ours: dict, theirs: Mapping, config: object, *, where: Path
) -> list[str]:
    """Return in words each key of front end and encoder whose two values make two architectures.

    Args:
        ours: plain configuration with both parts.
        theirs: the same of trained weights; keys that it lacks have their defaults.
        config: what `ours` is the plain form of.
        where: the folder or file of `theirs`, for messages.
    """
    differing = []
    for part, schema in zip(PARTS, (type(config.front_end), type(config.encoder)), strict=True):
        wanted, given = ours[part], dict(theirs[part])
        if given.get("name") != wanted["name"]:
            differing.append((f"{part}.name", given.get("name"), wanted["name"]))
            continue
        del given["name"]
        # Through the schema: keys that are newer than the pre-training get their defaults.
        full = to_plain(from_plain(schema, given, where=where))
        differing += [
            (f"{part}.{key}", value, wanted[key])
            for key, value in full.items()
            if value != wanted[key] and not _may_differ(key)
        ]
    return [f"{key} {theirs!r}, not {ours!r}" for key, theirs, ours in differing]


def _may_differ(key: str) -> bool:
    """Return whether a key only says what is done in training."""
    return key == "spec_augment" or key.endswith(("dropout", "layerdrop", "layer_drop"))


def _unfit(message: str, where: Path) -> InputError:
    source = f"{where}/config.yaml" if where.is_dir() else f"the pre-training of {where.name}"
    return InputError(
        message, where=where, fix=f"use the model.front_end and model.encoder of {source}"
    )
