"""HuBERT's parameters here, in Hugging Face's transformers, in torchaudio and in fairseq.

Only names change: every tensor is the same in all four. Read from transformers 5.23 (HubertModel),
torchaudio 2.11 (Wav2Vec2Model, HuBERTPretrainModel) and fairseq 0.12.2 (HubertModel).
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from espnet_lite.errors import InputError

# fairseq's Dictionary begins with <s>, <pad>, </s>, <unk>, which are no units.
FAIRSEQ_SPECIAL_SYMBOLS = 4
# The encoder's own norm has one name in each layout; in Base it stands before the blocks, in Large
# after them, and we call it by its place.
_NORM_BEFORE, _NORM_AFTER = "encoder.input_norm", "encoder.norm"


def _modules(*pairs: tuple[str, str]) -> tuple[tuple[str, str], ...]:
    """Return the pairs of names with `.weight` and with `.bias`."""
    return tuple((f"{a}.{p}", f"{b}.{p}") for a, b in pairs for p in ("weight", "bias"))


def _positions(there: str, *names: tuple[str, str]) -> tuple[tuple[str, str], ...]:
    """Return the pairs for the positional convolution; `names` are its weight norm's, newest first."""
    ours = "encoder.positions"
    return (
        (f"{there}.bias", f"{ours}.bias"),
        *((f"{there}.{magnitude}", f"{ours}.magnitude") for magnitude, _ in names),
        *((f"{there}.{direction}", f"{ours}.direction") for _, direction in names),
    )


def _attention(there: str) -> tuple[tuple[str, str], ...]:
    names = (("q_proj", "query"), ("k_proj", "key"), ("v_proj", "value"), ("out_proj", "out"))
    return tuple((f"{there}.{a}", f"encoder.blocks.{{}}.attention.{b}") for a, b in names)


def _transformers(*, projection: str, encoder: str) -> tuple[tuple[str, str], ...]:
    """Return the pairs of the layout that Hugging Face and torchaudio share."""
    block = f"{encoder}.layers.{{}}"
    return (
        *_modules(
            ("feature_extractor.conv_layers.{}.conv", "front_end.convolutions.{}.convolution"),
            ("feature_extractor.conv_layers.{}.layer_norm", "front_end.convolutions.{}.norm"),
            (f"{projection}.layer_norm", "front_end.norm"),
            (f"{projection}.projection", "front_end.projection"),
            *_attention(f"{block}.attention"),
            (f"{block}.layer_norm", "encoder.blocks.{}.attention_norm"),
            (f"{block}.feed_forward.intermediate_dense", "encoder.blocks.{}.feed_forward.expand"),
            (f"{block}.feed_forward.output_dense", "encoder.blocks.{}.feed_forward.contract"),
            (f"{block}.final_layer_norm", "encoder.blocks.{}.feed_forward_norm"),
            (f"{encoder}.layer_norm", _NORM_AFTER),
        ),
        *_positions(
            f"{encoder}.pos_conv_embed.conv",
            ("parametrizations.weight.original0", "parametrizations.weight.original1"),
            ("weight_g", "weight_v"),  # before torch 2.0
        ),
    )


_FAIRSEQ_GROUP_NORM = [f"feature_extractor.conv_layers.{{}}.2.{p}" for p in ("weight", "bias")]
_FAIRSEQ = (
    *_modules(
        ("feature_extractor.conv_layers.{}.0", "front_end.convolutions.{}.convolution"),
        ("feature_extractor.conv_layers.{}.2", "front_end.convolutions.{}.norm"),  # Base
        ("feature_extractor.conv_layers.{}.2.1", "front_end.convolutions.{}.norm"),  # Large
        ("layer_norm", "front_end.norm"),
        ("post_extract_proj", "front_end.projection"),
        *_attention("encoder.layers.{}.self_attn"),
        ("encoder.layers.{}.self_attn_layer_norm", "encoder.blocks.{}.attention_norm"),
        ("encoder.layers.{}.fc1", "encoder.blocks.{}.feed_forward.expand"),
        ("encoder.layers.{}.fc2", "encoder.blocks.{}.feed_forward.contract"),
        ("encoder.layers.{}.final_layer_norm", "encoder.blocks.{}.feed_forward_norm"),
        ("encoder.layer_norm", _NORM_AFTER),
        ("final_proj", "head.project"),
    ),
    *_positions("encoder.pos_conv.0", ("weight_g", "weight_v")),
    ("mask_emb", "mask_embedding"),
    ("label_embs_concat", "head.embeddings"),
)


@dataclass(frozen=True)
class Layout:
    """A foreign state dict.

    Attributes:
        names: (theirs, ours) of each parameter; {} is the number of the convolution or block. Of
            several names for one of ours the first is written.
        prefix: before the names where the model is part of a greater one, as a fine-tuned one.
        left_out: beginnings of names that belong to no front end, encoder or unit head.
        mark: beginning of a name, after the prefix, that no other layout has.
    """

    names: tuple[tuple[str, str], ...]
    prefix: str
    left_out: tuple[str, ...]
    mark: str


LAYOUTS = {
    "hugging_face": Layout(
        names=(
            *_transformers(projection="feature_projection", encoder="encoder"),
            ("masked_spec_embed", "mask_embedding"),
        ),
        prefix="hubert.",
        left_out=("lm_head.", "projector.", "classifier.", "layer_weights"),
        mark="encoder.pos_conv_embed.",
    ),
    "torchaudio": Layout(
        names=(
            *_transformers(projection="encoder.feature_projection", encoder="encoder.transformer"),
            ("mask_generator.mask_embedding", "mask_embedding"),
            ("logit_generator.label_embeddings", "head.embeddings"),
            *_modules(("logit_generator.final_proj", "head.project")),
        ),
        prefix="wav2vec2.",
        left_out=("aux.",),
        mark="encoder.transformer.pos_conv_embed.",
    ),
    "fairseq": Layout(
        names=_FAIRSEQ,
        prefix="w2v_encoder.w2v_model.",
        left_out=("w2v_encoder.proj.",),
        mark="encoder.pos_conv.0.",
    ),
}


def detect_layout(names: Iterable[str], *, where: object = None) -> str:
    """Return which of LAYOUTS the names of a state dict follow.

    Raises:
        InputError: none of them.
    """
    names = list(names)
    for layout_name, layout in LAYOUTS.items():
        if any(name.removeprefix(layout.prefix).startswith(layout.mark) for name in names):
            return layout_name
    raise InputError(
        f"no HuBERT as {', '.join(LAYOUTS)} name one: of {len(names)} parameters none is the "
        f"positional convolution's; the first is '{next(iter(names), None)}'",
        where=where,
    )


def from_foreign(
    state: Mapping[str, Tensor],
    layout_name: str,
    *,
    norm_before: bool | None = None,
    where: object = None,
) -> tuple[dict[str, Tensor], list[str]]:
    """Return the state dict of models.hubert.HubertModel (or what there is of it), and the names
    left out, which belong to what was fine-tuned on top.

    Of fairseq's unit embeddings the first four, of its dictionary's special symbols, are dropped.

    Args:
        state: parameters by their foreign names.
        layout_name: one of LAYOUTS.
        norm_before: whether the encoder is Base's, normalized before its blocks; None: it is
            where only the first convolution has a norm, as in all that were published.
        where: file or folder, for messages.

    Raises:
        InputError: a name that a HuBERT of this layout does not have.
    """
    layout = LAYOUTS[layout_name]
    table = dict(layout.names)
    ours, left_out = {}, []
    for key, tensor in state.items():
        name = key.removeprefix(layout.prefix)
        if name.startswith(layout.left_out):
            left_out.append(key)
            continue
        new = _renamed(name, table)
        if new is None:
            raise InputError(
                f"parameter '{key}' of shape {list(tensor.shape)} is none of a HuBERT's as "
                f"{layout_name} names them",
                where=where,
            )
        ours[new] = tensor
    if layout_name == "fairseq" and "head.embeddings" in ours:
        ours["head.embeddings"] = ours["head.embeddings"][FAIRSEQ_SPECIAL_SYMBOLS:]
    if norm_before is None:
        norm_before = not has_frame_norms(ours)
    if norm_before:
        ours = {_moved(name, _NORM_AFTER, _NORM_BEFORE): tensor for name, tensor in ours.items()}
    return ours, left_out


def to_foreign(state: Mapping[str, Tensor], layout_name: str) -> dict[str, Tensor]:
    """Return a state dict of models.hubert.HubertModel under the names of another layout.

    A layout that has no name for the head goes without it; the embeddings of fairseq's special
    symbols, which we have not, do not come back.

    Raises:
        InputError: a parameter that a HuBERT does not have, as one of another encoder.
    """
    foreign = {}
    for name, tensor in state.items():
        new = foreign_name(name, layout_name, frame_norms=has_frame_norms(state))
        if new is not None:
            foreign[new] = tensor
        elif not name.startswith("head."):
            raise InputError(f"parameter '{name}' is none of a HuBERT Base's or Large's")
    return foreign


def foreign_name(name: str, layout_name: str, *, frame_norms: bool) -> str | None:
    """Return what a layout calls our parameter `name`; None: it has no such parameter.

    Args:
        name: of a parameter of models.hubert.HubertModel.
        layout_name: one of LAYOUTS.
        frame_norms: whether the front end's norms are Large's, of each frame.
    """
    names = LAYOUTS[layout_name].names
    if layout_name == "fairseq" and frame_norms:
        names = [pair for pair in names if pair[0] not in _FAIRSEQ_GROUP_NORM]
    table = {ours: theirs for theirs, ours in reversed(names)}  # the first of several names wins
    return _renamed(_moved(name, _NORM_BEFORE, _NORM_AFTER), table)


def has_frame_norms(ours: Mapping[str, Tensor]) -> bool:
    """Return whether each convolution has a norm, as in Large; in Base only the first has."""
    return "front_end.convolutions.1.norm.weight" in ours


def _renamed(name: str, table: Mapping[str, str]) -> str | None:
    """Return what `table` makes of a name, whose first number between dots is kept."""
    if name in table:
        return table[name]
    number = re.search(r"\.(\d+)\.", name)
    if number is None:
        return None
    pattern = f"{name[: number.start(1)]}{{}}{name[number.end(1) :]}"
    return table[pattern].format(number[1]) if pattern in table else None


def _moved(name: str, module: str, new_module: str) -> str:
    """Return `name` with `new_module` in the place of `module`."""
    return new_module + name.removeprefix(module) if name.startswith(f"{module}.") else name
