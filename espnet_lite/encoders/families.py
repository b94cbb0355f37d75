"""The encoders by name. An encoder maps (features, lengths) to an EncoderOutput and has `dim`, and
`norm`, which makes of a block's output what the encoder would return after it."""

from espnet_lite.encoders.conformer import ConformerConfig, ConformerEncoder
from espnet_lite.encoders.hubert import (
    HubertBaseConfig,
    HubertBaseEncoder,
    HubertLargeConfig,
    HubertLargeEncoder,
)
from espnet_lite.encoders.squeezeformer import SqueezeformerConfig, SqueezeformerEncoder
from espnet_lite.encoders.transformer import TransformerConfig, TransformerEncoder

ENCODERS = {
    "transformer": (TransformerConfig, TransformerEncoder),
    "conformer": (ConformerConfig, ConformerEncoder),
    "squeezeformer": (SqueezeformerConfig, SqueezeformerEncoder),
    "hubert_base": (HubertBaseConfig, HubertBaseEncoder),
    "hubert_large": (HubertLargeConfig, HubertLargeEncoder),
}
