"""The encoders by name. An encoder maps (features, lengths) to an EncoderOutput and has `dim`, and
`norm`, which makes of a block's output what the encoder would return after it."""

from espnet_lite.encoders.hubert import (
    HubertBaseConfig,
    HubertBaseEncoder,
    HubertLargeConfig,
    HubertLargeEncoder,
)
from espnet_lite.encoders.transformer import TransformerConfig, TransformerEncoder

ENCODERS = {
    "transformer": (TransformerConfig, TransformerEncoder),
    "hubert_base": (HubertBaseConfig, HubertBaseEncoder),
    "hubert_large": (HubertLargeConfig, HubertLargeEncoder),
}
