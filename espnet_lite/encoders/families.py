"""The encoders by name. An encoder maps (features, lengths) to an EncoderOutput and has `dim`."""

from espnet_lite.encoders.transformer import TransformerConfig, TransformerEncoder

ENCODERS = {
    "transformer": (TransformerConfig, TransformerEncoder),
}
