"""The encoders by name. An encoder maps (features, lengths) to an EncoderOutput and has `dim`, and
`norm`, which makes of a block's output what the encoder would return after it."""

import math

from espnet_lite.encoders.conformer import ConformerConfig, ConformerEncoder
from espnet_lite.encoders.hubert import (
    HubertBaseConfig,
    HubertBaseEncoder,
    HubertLargeConfig,
    HubertLargeEncoder,
)
from espnet_lite.encoders.sparseformer import SparseformerConfig, SparseformerEncoder
from espnet_lite.encoders.squeezeformer import SqueezeformerConfig, SqueezeformerEncoder
from espnet_lite.encoders.transformer import TransformerConfig, TransformerEncoder
from espnet_lite.errors import InputError
from espnet_lite.features.frame_grid import FrameGrid

ENCODERS = {
    "transformer": (TransformerConfig, TransformerEncoder),
    "conformer": (ConformerConfig, ConformerEncoder),
    "squeezeformer": (SqueezeformerConfig, SqueezeformerEncoder),
    "sparseformer": (SparseformerConfig, SparseformerEncoder),
    "hubert_base": (HubertBaseConfig, HubertBaseEncoder),
    "hubert_large": (HubertLargeConfig, HubertLargeEncoder),
}


def check_frame_rate(encoder: object, grid: FrameGrid) -> None:
    """Make sure that the frames of a front end are as long as the encoder's config says, if it does.

    Raises:
        InputError: the window in seconds would be one of other seconds.
    """
    if isinstance(encoder, SparseformerConfig) and not math.isclose(
        encoder.frame_ms, grid.frame_ms
    ):
        raise InputError(
            f"{encoder.frame_ms:g}, but the front end makes a frame each {grid.frame_ms:g} ms",
            where="encoder.frame_ms",
            fix=f"write frame_ms: {grid.frame_ms:g}",
        )
