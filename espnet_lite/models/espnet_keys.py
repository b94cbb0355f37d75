"""Names of parameters here and in ESPnet: state dicts of Transformers convert both ways.

Only names change; every tensor is the same on both sides. ESPnet keeps the subsampling inside its
encoder, so its encoder is our encoder and our front end's `subsampling` together. In a padded batch
ESPnet keeps up to two frames an utterance that saw padding; alone, an utterance gives the same.
"""

import re
from collections.abc import Iterable

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
_ENCODER = (
    ("embed.conv.0", "front_end.subsampling.first"),
    ("embed.conv.2", "front_end.subsampling.second"),
    ("embed.out.0", "front_end.subsampling.project"),
    *(
        (f"encoders.{{}}.self_attn.{a}", f"encoder.blocks.{{}}.attention.{b}")
        for a, b in _ATTENTION
    ),
    *((f"encoders.{{}}.{a}", f"encoder.blocks.{{}}.{b}") for a, b in _FEED_FORWARD),
    ("encoders.{}.norm1", "encoder.blocks.{}.attention_norm"),
    ("encoders.{}.norm2", "encoder.blocks.{}.feed_forward_norm"),
    ("after_norm", "encoder.norm"),
)


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


def _swapped(names: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(there, here) for here, there in names]


def _renamed(
    state: dict[str, Tensor], names: Iterable[tuple[str, str]], *, kind: str
) -> dict[str, Tensor]:
    """Return `state` under the new names, in the same order."""
    table = dict(names)
    renamed = {}
    for key, value in state.items():
        module, _, parameter = key.rpartition(".")
        number = re.search(r"\.(\d+)\.", module)  # the first one with dots around it is the block's
        pattern = module
        if number and module not in table:
            pattern = module[: number.start(1)] + "{}" + module[number.end(1) :]
        if pattern not in table or parameter not in ("weight", "bias"):
            raise InputError(
                f"parameter '{key}' of shape {tuple(value.shape)} is none of a {kind}'s, "
                "expected a pre-norm Transformer with absolute positions"
            )
        new = table[pattern].format(number[1]) if number else table[pattern]
        renamed[f"{new}.{parameter}"] = value
    return renamed
