"""Names of parameters here and in ESPnet: state dicts of Transformers and Conformers convert both ways.

Only names change; every tensor is the same on both sides, but for a pointwise convolution, which is
a Linear here. ESPnet keeps the subsampling inside its encoder, so its encoder is our encoder and our
front end's `subsampling` together. In a padded batch ESPnet keeps up to two frames an utterance that
saw padding, and its Conformer convolves padding into frames near an utterance's end; alone, an
utterance gives the same.
"""

import re
from collections.abc import Iterable

import torch
from torch import Tensor

from espnet_lite.errors import InputError

# (ESPnet, ours) name of each module; {} is the number of the block.
_ATTENTION = (("linear_q", "query"), ("linear_k", "key"), ("linear_v", "value"))
_ATTENTION += (("linear_out", "out"),)
_FEED_FORWARD = (
    ("feed_forward.w_1", "feed_forward.expand"),
    ("feed_forward.w_2", "feed_forward.contract"),
)
_DECODER = (
    ("embed.0", "embedding"),
    *((f"decoders.{{}}.self_attn.{a}", f"blocks.{{}}.self_attention.{b}") for a, b in _ATTENTION),
    *((f"decoders.{{}}.src_attn.{a}", f"blocks.{{}}.cross_attention.{b}") for a, b in _ATTENTION),
    *((f"decoders.{{}}.{a}", f"blocks.{{}}.{b}") for a, b in _FEED_FORWARD),
    ("decoders.{}.norm1", "blocks.{}.self_attention_norm"),
    ("decoders.{}.norm2", "blocks.{}.cross_attention_norm"),
    ("decoders.{}.norm3", "blocks.{}.feed_forward_norm"),
    ("after_norm", "norm"),
    ("output_layer", "output"),
)
_AROUND_BLOCKS = (
    ("embed.conv.0", "front_end.subsampling.first"),
    ("embed.conv.2", "front_end.subsampling.second"),
    ("embed.out.0", "front_end.subsampling.project"),
    ("after_norm", "encoder.norm"),
)
_SELF_ATTENTION = tuple(
    (f"encoders.{{}}.self_attn.{a}", f"encoder.blocks.{{}}.attention.{b}") for a, b in _ATTENTION
)
_ENCODER = (
    *_AROUND_BLOCKS,
    *_SELF_ATTENTION,
    *((f"encoders.{{}}.{a}", f"encoder.blocks.{{}}.{b}") for a, b in _FEED_FORWARD),
    ("encoders.{}.norm1", "encoder.blocks.{}.attention_norm"),
    ("encoders.{}.norm2", "encoder.blocks.{}.feed_forward_norm"),
)
_CONFORMER = (
    *_AROUND_BLOCKS,
    *_SELF_ATTENTION,
    *(
        (f"encoders.{{}}.{a}", f"encoder.blocks.{{}}.{b}")
        for a, b in (
            ("feed_forward_macaron.w_1", "first_feed_forward.expand"),
            ("feed_forward_macaron.w_2", "first_feed_forward.contract"),
            ("feed_forward.w_1", "second_feed_forward.expand"),
            ("feed_forward.w_2", "second_feed_forward.contract"),
            ("self_attn.linear_pos", "attention.position"),
            ("self_attn.pos_bias_u", "attention.content_bias"),
            ("self_attn.pos_bias_v", "attention.position_bias"),
            ("conv_module.pointwise_conv1", "convolution.pointwise_in"),
            ("conv_module.depthwise_conv", "convolution.depthwise"),
            ("conv_module.norm", "convolution.norm"),
            ("conv_module.pointwise_conv2", "convolution.pointwise_out"),
            ("norm_ff_macaron", "first_feed_forward_norm"),
            ("norm_mha", "attention_norm"),
            ("norm_conv", "convolution_norm"),
            ("norm_ff", "second_feed_forward_norm"),
            ("norm_final", "norm"),
        )
    ),
)
_EXPECTED = "a Conformer in macaron style with relative positions"  # of conformer_*
_PARAMETERS = ("weight", "bias", "running_mean", "running_var")
_BATCHES = "num_batches_tracked"  # torch's BatchNorm counts batches, which nothing reads


def decoder_from_espnet(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the state dict of nn.decoder.TransformerDecoder for that of ESPnet's.

    Raises:
        InputError: a key that a pre-norm Transformer decoder with an embedding does not have.
    """
    return _renamed(state, _DECODER, kind="ESPnet decoder")


def decoder_to_espnet(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the state dict of ESPnet's TransformerDecoder for ours."""
    return _renamed(state, _swapped(_DECODER), kind="decoder")


def encoder_from_espnet(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the keys `front_end.subsampling.*` and `encoder.*` of a recognizer with sinusoidal
    positions for the state dict of ESPnet's TransformerEncoder with conv2d subsampling (or none).

    Raises:
        InputError: a key that such an encoder does not have.
    """
    return _renamed(state, _ENCODER, kind="ESPnet encoder")


def encoder_to_espnet(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the state dict of ESPnet's TransformerEncoder for the keys `front_end.subsampling.*`
    and `encoder.*` of ours."""
    return _renamed(state, _swapped(_ENCODER), kind="encoder")


def conformer_from_espnet(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the keys `front_end.subsampling.*` and `encoder.*` of a recognizer for the state dict
    of ESPnet's ConformerEncoder (macaron style, rel_pos_type latest) with conv2d subsampling.

    Raises:
        InputError: a key that such an encoder does not have.
    """
    state = {
        key: value.squeeze(-1) if ".pointwise_conv" in key and value.ndim == 3 else value
        for key, value in state.items()
        if not key.endswith(f".conv_module.norm.{_BATCHES}")
    }
    return _renamed(state, _CONFORMER, kind="ESPnet Conformer", expected=_EXPECTED)


def conformer_to_espnet(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the state dict of ESPnet's ConformerEncoder for the keys `front_end.subsampling.*` and
    `encoder.*` of ours; its counts of batches are 0."""
    espnet = {}
    renamed = _renamed(state, _swapped(_CONFORMER), kind="Conformer", expected=_EXPECTED)
    for key, value in renamed.items():
        is_pointwise = ".pointwise_conv" in key and key.endswith(".weight")
        espnet[key] = value.unsqueeze(-1) if is_pointwise else value
        if key.endswith(".conv_module.norm.running_var"):
            count = key.replace("running_var", _BATCHES)
            espnet[count] = value.new_zeros((), dtype=torch.int64)
    return espnet


def _swapped(names: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(there, here) for here, there in names]


def _renamed(
    state: dict[str, Tensor],
    names: Iterable[tuple[str, str]],
    *,
    kind: str,
    expected: str = "a pre-norm Transformer with absolute positions",
) -> dict[str, Tensor]:
    """Return `state` under the new names, in the same order."""
    table = dict(names)
    renamed = {}
    for key, value in state.items():
        new = _new_name(key, table)
        if new is None:
            raise InputError(
                f"parameter '{key}' of shape {tuple(value.shape)} is none of a {kind}'s, "
                f"expected {expected}"
            )
        renamed[new] = value
    return renamed


def _new_name(key: str, table: dict[str, str]) -> str | None:
    """Return the name of a parameter of a module in `table`, or of one that stands there itself."""
    number = re.search(r"\.(\d+)\.", key)  # the first one with dots around it is the block's
    module, _, parameter = key.rpartition(".")
    if module in table and parameter in _PARAMETERS:
        return f"{table[module]}.{parameter}"
    if number is None:
        return None
    pattern = key[: number.start(1)] + "{}" + key[number.end(1) :]
    module = pattern.rpartition(".")[0]
    if pattern in table:
        return table[pattern].format(number[1])
    if module in table and parameter in _PARAMETERS:
        return f"{table[module].format(number[1])}.{parameter}"
    return None
