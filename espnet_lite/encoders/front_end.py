"""Front ends: waveform to frames of the encoder's width.

A front end owns all that comes before the encoder: features, mean and variance normalization,
SpecAugment, subsampling and the projection to the encoder's `dim`.
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from espnet_lite.config import check_numbers
from espnet_lite.features.cmvn import GlobalCmvn, utterance_cmvn
from espnet_lite.features.fbank import Fbank
from espnet_lite.features.spec_augment import SpecAugment
from espnet_lite.nn.subsampling import Conv2dSubsampling4

CMVN = ("global", "utterance", "none")


@dataclass(frozen=True)
class SpecAugmentConfig:
    """Masks drawn for each utterance (Park et al. 2019); all counts zero switches it off."""

    frequency_masks: int = 2
    frequency_width: int = 27  # widest mask, in mel bins
    time_masks: int = 10
    time_width_ratio: float = 0.05  # widest mask, as a part of the utterance
    time_warp_frames: int = 0  # largest shift; 0 is off

    def __post_init__(self):
        counts = "frequency_masks frequency_width time_masks time_warp_frames"
        check_numbers(self, counts, at_least=0)
        check_numbers(self, "time_width_ratio", at_least=0, at_most=1)


@dataclass(frozen=True)
class LogMelConfig:
    """Log-mel filterbanks as Kaldi computes them, then 2-D convolution to a quarter of the rate."""

    sample_rate: int = 16000  # Hz
    num_mels: int = 80
    cmvn: str = "global"  # global | utterance | none
    channels: int = 64  # of the subsampling convolutions
    spec_augment: SpecAugmentConfig = field(default_factory=SpecAugmentConfig)

    def __post_init__(self):
        check_numbers(self, "sample_rate", at_least=1000)  # below, no mel filter is left
        check_numbers(self, "num_mels", at_least=7)  # the subsampling's two kernels of 3
        check_numbers(self, "channels", at_least=1)
        if self.cmvn not in CMVN:
            raise ValueError(f"cmvn '{self.cmvn}' is not one of {', '.join(CMVN)}")

    def feature_options(self) -> dict[str, object]:
        """Return what the statistics of CMVN depend on."""
        return {"kind": "log_mel", "num_mels": self.num_mels, "sample_rate": self.sample_rate}


class LogMelFrontEnd(nn.Module):
    """Waveform → log-mel → CMVN → SpecAugment (training only) → subsampling by 4 → (time, dim)."""

    def __init__(self, config: LogMelConfig, *, dim: int):
        super().__init__()
        self.config = config
        self.sample_rate = config.sample_rate
        self.fbank = Fbank(sample_rate=config.sample_rate, num_mels=config.num_mels)
        self.cmvn = GlobalCmvn(config.num_mels) if config.cmvn == "global" else None
        self.spec_augment = SpecAugment(
            frequency_masks=config.spec_augment.frequency_masks,
            frequency_width=config.spec_augment.frequency_width,
            time_masks=config.spec_augment.time_masks,
            time_width_ratio=config.spec_augment.time_width_ratio,
            time_warp_frames=config.spec_augment.time_warp_frames,
        )
        self.subsampling = Conv2dSubsampling4(config.num_mels, dim, channels=config.channels)

    def features(
        self, waveform: Float[Tensor, "batch samples"], waveform_lengths: Int[Tensor, "batch"]
    ) -> tuple[Float[Tensor, "batch frames mels"], Int[Tensor, "batch"]]:
        """Return log-mel frames before normalization: what global statistics are computed on."""
        return self.fbank(waveform, waveform_lengths)

    def forward(
        self,
        waveform: Float[Tensor, "batch samples"],
        waveform_lengths: Int[Tensor, "batch"],
        generator: torch.Generator | None = None,
    ) -> tuple[Float[Tensor, "batch time dim"], Int[Tensor, "batch"]]:
        """Return frames and their lengths; in training mode SpecAugment draws from `generator`."""
        features, lengths = self.features(waveform, waveform_lengths)
        if self.config.cmvn == "global":
            features = self.cmvn(features, lengths)
        elif self.config.cmvn == "utterance":
            features = utterance_cmvn(features, lengths)
        features = self.spec_augment(features, lengths, generator)
        return self.subsampling(features, lengths)


FRONT_ENDS = {
    "log_mel": (LogMelConfig, LogMelFrontEnd),
}
