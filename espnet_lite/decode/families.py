"""The attention decoders: what a recognizer trains and joint decoding runs, chosen by name."""

from dataclasses import dataclass

from espnet_lite.config import build_class, check_numbers
from espnet_lite.nn.decoder import TransformerDecoder


@dataclass(frozen=True)
class TransformerDecoderConfig:
    """ESPnet's default decoder; its width is the encoder's."""

    layers: int = 6
    heads: int = 4
    feed_forward: int = 2048
    dropout: float = 0.1

    def __post_init__(self):
        check_numbers(self, "layers heads feed_forward", at_least=1)
        check_numbers(self, "dropout", at_least=0, below=1)


DECODERS = {"transformer": (TransformerDecoderConfig, TransformerDecoder)}


def build_decoder(config: object, *, vocab: int, dim: int) -> TransformerDecoder:
    """Return the decoder of a config of DECODERS for an encoder of width `dim`."""
    return build_class(DECODERS, config)(
        vocab=vocab,
        dim=dim,
        heads=config.heads,
        feed_forward=config.feed_forward,
        layers=config.layers,
        dropout=config.dropout,
    )
