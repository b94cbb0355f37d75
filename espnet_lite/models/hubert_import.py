"""HuBERT checkpoints of Hugging Face, torchaudio and fairseq as a pre-training of ours."""

import json
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from espnet_lite.config import from_plain
from espnet_lite.encoders.waveform import WaveformConfig
from espnet_lite.errors import InputError
from espnet_lite.models.hubert import HubertConfig, HubertModel
from espnet_lite.models.hubert_keys import (
    detect_layout,
    foreign_name,
    from_foreign,
    has_frame_norms,
)

# Heads leave no trace in the shapes: those of Base, Large and X-Large by their widths.
HEADS = {768: 12, 1024: 16, 1280: 16}
_TORCH_SAVE = (b"PK\x03\x04", b"\x80")  # a zip archive; before torch 1.6 a pickle
OPTIONAL = ("mask_embedding", "head.")  # what a checkpoint may do without
# HubertConfig of transformers: what a config.json means that does not say.
_HUGGING_FACE = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_dropout": 0.1,
    "activation_dropout": 0.1,
    "attention_dropout": 0.1,
    "feat_proj_dropout": 0.0,
    "layerdrop": 0.1,
    "feat_extract_norm": "group",
    "conv_dim": [512] * 7,
    "conv_stride": [5, 2, 2, 2, 2, 2, 2],
    "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
    "conv_bias": False,
    "num_conv_pos_embeddings": 128,
    "num_conv_pos_embedding_groups": 16,
    "do_stable_layer_norm": False,
}
# What our classes do not vary, with the default: a config.json that asks for more is refused.
_HUGGING_FACE_FIXED = {
    "hidden_act": "gelu",
    "feat_extract_activation": "gelu",
    "layer_norm_eps": 1.0e-5,
    "feat_proj_layer_norm": True,
    "conv_pos_batch_norm": False,
    "adapter_attn_dim": None,
}


@dataclass(frozen=True)
class ImportedHubert:
    """A pre-training of ours.

    Attributes:
        weights: `front_end.*`, `encoder.*` and what else of models.hubert.HubertModel there was;
            fp32.
        config: plain, `front_end` and `encoder`, with the head's width `head` where there is one.
        layout: the one of LAYOUTS it came in.
        left_out: names of the checkpoint that belong to what was fine-tuned on top.
    """

    weights: dict[str, Tensor]
    config: dict[str, dict]
    layout: str
    left_out: list[str]


def import_hubert(
    path: Path, *, layout_name: str | None = None, heads: int | None = None
) -> ImportedHubert:
    """Return the HuBERT of a checkpoint, which fits models.hubert.HubertModel.

    Args:
        path: folder of Hugging Face (config.json, model.safetensors), or file of torchaudio or
            fairseq.
        layout_name: one of LAYOUTS; None: as the names of the parameters tell.
        heads: of the attention, where neither the checkpoint nor its width tells; None: they do.

    Raises:
        InputError: no such checkpoint, an architecture that is not HuBERT's, or the first
            parameter that is missing, unexpected or of another shape.
    """
    if not path.exists():
        raise InputError("no such file or folder", where=path)
    state = read_folder(path) if path.is_dir() else read_file(path)
    layout_name = layout_name or detect_layout(state, where=path)
    norm_before = None
    config = None
    if path.is_dir():
        plain = _read_json(path / "config.json")
        config = config_of_hugging_face(plain, where=path / "config.json")
        norm_before = config["encoder"]["name"] == "hubert_base"
    weights, left_out = from_foreign(state, layout_name, norm_before=norm_before, where=path)
    if config is None:
        config = config_of_shapes(weights, heads=heads, where=path)
    if "head.project.weight" in weights:
        config["head"] = {"name": "cosine", "dim": weights["head.project.weight"].size(0)}
    weights = {name: tensor.float().contiguous() for name, tensor in weights.items()}
    _check_fit(weights, config, layout_name=layout_name, where=path)
    return ImportedHubert(weights, config, layout_name, left_out)


def read_folder(folder: Path) -> dict[str, Tensor]:
    """Return the parameters in a folder of Hugging Face: safetensors, one file or several, else
    pytorch_model.bin.

    Raises:
        InputError: none of these, or one that cannot be read.
    """
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = sorted(set(_read_json(index).get("weight_map", {}).values()))
    elif not (folder / "model.safetensors").is_file() and (folder / "pytorch_model.bin").is_file():
        return read_file(folder / "pytorch_model.bin")
    else:
        names = ["model.safetensors"]
    state = {}
    for name in names:
        if not (folder / name).is_file():
            raise InputError(
                "no such file",
                where=folder / name,
                fix="give a folder with config.json and model.safetensors, or a file",
            )
        try:
            state.update(load_file(folder / name))
        except SafetensorError as error:
            raise InputError(f"not a safetensors file ({error})", where=folder / name) from error
    return state


def read_file(path: Path) -> dict[str, Tensor]:
    """Return the parameters in a file that torch.save wrote: a state dict, or one under `model`
    (fairseq) or `state_dict`.

    Nothing but tensors and plain containers is read: a pickle may run code.

    Raises:
        InputError: another kind of file, or one that holds objects of Python.
    """
    with path.open("rb") as file:
        if not file.read(4).startswith(_TORCH_SAVE):
            raise InputError("not a file of torch.save", where=path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _not_plain(path, error) from error
    except (RuntimeError, EOFError) as error:
        raise InputError("not a whole file of torch.save", where=path) from error
    for key in ("model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict):
        raise InputError(
            f"holds a {type(content).__name__}, expected a state dict of tensors", where=path
        )
    for name, value in content.items():
        if not isinstance(value, Tensor):
            raise InputError(
                f"'{name}' is a {type(value).__name__}, expected a state dict of tensors",
                where=path,
            )
    return dict(content)


def _not_plain(path: Path, error: pickle.UnpicklingError) -> InputError:
    found = re.search(r"GLOBAL ([\w.]+)", str(error))
    name = found[1] if found else "Python"
    return InputError(
        f"holds objects of {name} beside its tensors, which are not loaded, as a pickle may run code",
        where=path,
        fix=(
            'where you trust it and have its package: python -c "import torch; '
            f"torch.save(torch.load('{path.name}', weights_only=False)['model'], 'weights.pt')\""
            ", then import weights.pt"
        ),
    )


def _read_json(path: Path) -> dict:
    if not path.is_file():
        raise InputError("no such file", where=path, fix="give a folder that has it, or a file")
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"not JSON ({error})", where=path) from error
    if not isinstance(plain, dict):
        raise InputError(f"expected a mapping, found {type(plain).__name__}", where=path)
    return plain


def config_of_hugging_face(plain: Mapping[str, object], *, where: object = None) -> dict:
    """Return `front_end` and `encoder` for a config.json of transformers.

    Raises:
        InputError: another kind of model, or a choice that our classes do not have.
    """
    for key, expected in {"model_type": "hubert", **_HUGGING_FACE_FIXED}.items():
        value = plain.get(key, None if key == "model_type" else expected)
        if value != expected:
            raise InputError(f"{key} is {value!r}, expected {expected!r}", where=where)
    full = {key: plain.get(key, default) for key, default in _HUGGING_FACE.items()}
    sizes = [full[key] for key in ("conv_dim", "conv_kernel", "conv_stride")]
    if not all(isinstance(size, list) and len(size) == len(sizes[0]) for size in sizes):
        raise InputError("conv_dim, conv_kernel, conv_stride are not equally long", where=where)
    config = {
        "front_end": {
            "name": "waveform",
            "convolutions": [list(numbers) for numbers in zip(*sizes, strict=True)],
            "norm": full["feat_extract_norm"],
            "conv_bias": full["conv_bias"],
            # Base's first norm undoes what the waveform's would do, and fairseq, where the
            # published ones were trained, normalizes for Large only.
            "normalize": full["feat_extract_norm"] == "layer",
            "dropout": full["feat_proj_dropout"],
        },
        "encoder": {
            "name": "hubert_large" if full["do_stable_layer_norm"] else "hubert_base",
            "dim": full["hidden_size"],
            "layers": full["num_hidden_layers"],
            "heads": full["num_attention_heads"],
            "feed_forward": full["intermediate_size"],
            "dropout": full["hidden_dropout"],
            "attention_dropout": full["attention_dropout"],
            "activation_dropout": full["activation_dropout"],
            "layerdrop": full["layerdrop"],
            "position_kernel": full["num_conv_pos_embeddings"],
            "position_groups": full["num_conv_pos_embedding_groups"],
        },
    }
    from_plain(HubertConfig, config, where=where)
    return config


def config_of_shapes(
    ours: Mapping[str, Tensor], *, heads: int | None = None, where: object = None
) -> dict:
    """Return `front_end` and `encoder` for weights under our names, whose checkpoint tells nothing.

    Strides are HuBERT's, heads those of the published one of this width, and the encoder is
    normalized before its modules where the front end normalizes each frame. Rates of dropout, which
    leave no trace either, are the class's.

    Raises:
        InputError: what the shapes do not tell is not as in a published one.
    """
    shapes = {name: list(tensor.shape) for name, tensor in ours.items()}
    needed = ("encoder.positions.direction", "encoder.blocks.0.feed_forward.expand.weight")
    for name in needed:
        if len(shapes.get(name, ())) < 2:
            raise InputError(f"no parameter '{name}' (by our name)", where=where)
    strides = [stride for _, _, stride in WaveformConfig.convolutions]
    kernels = [kernel for _, kernel, _ in WaveformConfig.convolutions]
    convolutions = _numbered(shapes, "front_end.convolutions.{}.convolution.weight")
    if [shape[-1] for shape in convolutions] != kernels:
        raise InputError(
            f"convolutions with kernels {[shape[-1] for shape in convolutions]}, expected {kernels}: "
            "of others the strides are not known",
            where=where,
        )
    dim, group_dim, position_kernel = shapes["encoder.positions.direction"]
    if heads is None and dim not in HEADS:
        raise InputError(
            f"width {dim} is none of a published HuBERT ({', '.join(map(str, HEADS))}), whose heads "
            "are known",
            where=where,
            fix="name them with --heads N",
        )
    is_large = has_frame_norms(ours)
    front_end = {
        "name": "waveform",
        "convolutions": [
            [shape[0], kernel, stride]
            for shape, kernel, stride in zip(convolutions, kernels, strides, strict=True)
        ],
        "norm": "layer" if is_large else "group",
        "conv_bias": "front_end.convolutions.0.convolution.bias" in shapes,
        "normalize": is_large,
        "dropout": 0.0 if is_large else WaveformConfig.dropout,
    }
    encoder = {
        "name": "hubert_large" if is_large else "hubert_base",
        "dim": dim,
        "layers": len(_numbered(shapes, "encoder.blocks.{}.feed_forward.expand.weight")),
        "heads": HEADS[dim] if heads is None else heads,
        "feed_forward": shapes["encoder.blocks.0.feed_forward.expand.weight"][0],
        "position_kernel": position_kernel,
        "position_groups": dim // group_dim,
    }
    config = {"front_end": front_end, "encoder": encoder}
    from_plain(HubertConfig, config, where=where)
    return config


def _numbered(shapes: Mapping[str, list[int]], pattern: str) -> list[list[int]]:
    """Return the shapes of `pattern` with 0, 1, … as long as there are any."""
    found = []
    while pattern.format(len(found)) in shapes:
        found.append(shapes[pattern.format(len(found))])
    return found


def _check_fit(
    weights: Mapping[str, Tensor], config: dict, *, layout_name: str, where: object
) -> None:
    """Raise unless the weights are those of the model that `config` describes."""
    clusters = weights["head.embeddings"].size(0) if "head.embeddings" in weights else 1
    with torch.device("meta"):  # shapes without memory
        model = HubertModel(from_plain(HubertConfig, config, where=where), clusters=clusters)
    expected = model.state_dict()

    def shown(name: str) -> str:
        return foreign_name(name, layout_name, frame_norms=has_frame_norms(expected)) or name

    for name, tensor in expected.items():
        if name not in weights:
            if name.startswith(OPTIONAL):
                continue
            raise InputError(f"no parameter '{shown(name)}'", where=where)
        if weights[name].shape != tensor.shape:
            raise InputError(
                f"parameter '{shown(name)}' has the shape {list(weights[name].shape)}, expected "
                f"{list(tensor.shape)}",
                where=where,
            )
    for name in weights:
        if name not in expected:
            raise InputError(f"parameter '{shown(name)}' is more than the model has", where=where)
