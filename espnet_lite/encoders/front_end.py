"""Front ends: waveform to frames of the encoder's width.

A front end owns all that comes before the encoder: features, mean and variance normalization,
SpecAugment, subsampling and the projection to the encoder's `dim`. It has

    grid: where its frames lie in the waveform,
    local(waveform, waveform_lengths, generator=None): frames before the projection, and lengths,
    project(x): those frames at the encoder's width;

and called it does both. HuBERT scales the gradient and penalizes the size of what `local` gives.
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from espnet_lite.config import check_numbers
from espnet_lite.encoders.waveform import WaveformConfig, WaveformFrontEnd
from espnet_lite.features.cmvn import GlobalCmvn, utterance_cmvn
from espnet_lite.features.fbank import Fbank
from espnet_lite.features.frame_grid import FrameGrid
from espnet_lite.features.spec_augment import SpecAugment
from espnet_lite.nn.subsampling import (
    CONV2D_SUBSAMPLINGS,
    KERNEL,
    SEPARABLE_SUBSAMPLINGS,
    stack_frames,
)

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
class _MelConfig:
    """What every front end of log-mel filterbanks is made of."""

    sample_rate: int = 16000  # Hz
    num_mels: int = 80
    cmvn: str = "global"  # global | utterance | none
    spec_augment: SpecAugmentConfig = field(default_factory=SpecAugmentConfig)

    def __post_init__(self):
        check_numbers(self, "sample_rate", at_least=1000)  # below, no mel filter is left
        check_numbers(self, "num_mels", at_least=1)
        if self.cmvn not in CMVN:
            raise ValueError(f"cmvn '{self.cmvn}' is not one of {', '.join(CMVN)}")

    def feature_options(self) -> dict[str, object]:
        """Return what the statistics of CMVN depend on."""
        return {"kind": "log_mel", "num_mels": self.num_mels, "sample_rate": self.sample_rate}


@dataclass(frozen=True)
class LogMelConfig(_MelConfig):
    """Log-mel filterbanks as Kaldi computes them, then 2-D convolution to a lower rate."""

    channels: int = 64  # of the subsampling convolutions
    subsampling: int = 4  # frames of 10 ms to one of the encoder: 4 (40 ms) | 2 (20 ms)
    separable: bool = False  # second convolution by channel, then across channels (Squeezeformer)

    def __post_init__(self):
        super().__post_init__()
        check_numbers(self, "num_mels", at_least=7)  # the subsampling's two kernels of 3
        check_numbers(self, "channels", at_least=1)
        if self.subsampling not in CONV2D_SUBSAMPLINGS:
            known = ", ".join(map(str, CONV2D_SUBSAMPLINGS))
            raise ValueError(f"subsampling {self.subsampling} is not one of {known}")


@dataclass(frozen=True)
class StackedLogMelConfig(_MelConfig):
    """Log-mel filterbanks, neighbours joined: MelHuBERT's input (2211.09944, section 3.1)."""

    num_mels: int = 40
    stack: int = 2  # frames of 10 ms joined to one of the encoder: 2 (20 ms), 4 (40 ms), …

    def __post_init__(self):
        super().__post_init__()
        check_numbers(self, "stack", at_least=1)


class _MelFrontEnd(nn.Module):
    """What front ends of log-mel filterbanks share; each adds `local` and `project`."""

    def __init__(self, config: _MelConfig):
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

    def fbank_grid(self) -> FrameGrid:
        """Return where the frames of `features` lie."""
        return FrameGrid(self.sample_rate, self.fbank.window, self.fbank.shift)

    def features(
        self, waveform: Float[Tensor, "batch samples"], waveform_lengths: Int[Tensor, "batch"]
    ) -> tuple[Float[Tensor, "batch frames mels"], Int[Tensor, "batch"]]:
        """Return log-mel frames before normalization: what global statistics are computed on."""
        return self.fbank(waveform, waveform_lengths)

    def normalized(
        self,
        waveform: Float[Tensor, "batch samples"],
        waveform_lengths: Int[Tensor, "batch"],
        generator: torch.Generator | None = None,
    ) -> tuple[Float[Tensor, "batch frames mels"], Int[Tensor, "batch"]]:
        """Return log-mel frames after CMVN and, in training mode, SpecAugment."""
        features, lengths = self.features(waveform, waveform_lengths)
        if self.config.cmvn == "global":
            features = self.cmvn(features, lengths)
        elif self.config.cmvn == "utterance":
            features = utterance_cmvn(features, lengths)
        return self.spec_augment(features, lengths, generator), lengths

    def forward(
        self,
        waveform: Float[Tensor, "batch samples"],
        waveform_lengths: Int[Tensor, "batch"],
        generator: torch.Generator | None = None,
    ) -> tuple[Float[Tensor, "batch time dim"], Int[Tensor, "batch"]]:
        """Return frames and their lengths; in training mode SpecAugment draws from `generator`."""
        x, lengths = self.local(waveform, waveform_lengths, generator)
        return self.project(x), lengths


class LogMelFrontEnd(_MelFrontEnd):
    """Waveform → log-mel → CMVN → SpecAugment (training only) → subsampling → (time, dim)."""

    def __init__(self, config: LogMelConfig, *, dim: int):
        super().__init__(config)
        family = SEPARABLE_SUBSAMPLINGS if config.separable else CONV2D_SUBSAMPLINGS
        subsampling = family[config.subsampling]
        self.subsampling = subsampling(config.num_mels, dim, channels=config.channels)
        self.grid = self.fbank_grid()
        for stride in subsampling.strides:
            self.grid = self.grid.subsampled(KERNEL, stride)

    def local(
        self,
        waveform: Float[Tensor, "batch samples"],
        waveform_lengths: Int[Tensor, "batch"],
        generator: torch.Generator | None = None,
    ) -> tuple[Float[Tensor, "batch time local_dim"], Int[Tensor, "batch"]]:
        """Return what the convolutions make of the features, and its lengths."""
        features, lengths = self.normalized(waveform, waveform_lengths, generator)
        return self.subsampling.convolve(features, lengths)

    def project(self, x: Float[Tensor, "batch time local_dim"]) -> Float[Tensor, "batch time dim"]:
        """Return the encoder's input for the output of `local`."""
        return self.subsampling.project(x)


class StackedLogMelFrontEnd(_MelFrontEnd):
    """Waveform → log-mel → CMVN → SpecAugment (training only) → frames joined → (time, dim)."""

    def __init__(self, config: StackedLogMelConfig, *, dim: int):
        super().__init__(config)
        self.projection = nn.Linear(config.num_mels * config.stack, dim)
        self.grid = self.fbank_grid().subsampled(config.stack, config.stack)

    def local(
        self,
        waveform: Float[Tensor, "batch samples"],
        waveform_lengths: Int[Tensor, "batch"],
        generator: torch.Generator | None = None,
    ) -> tuple[Float[Tensor, "batch time local_dim"], Int[Tensor, "batch"]]:
        """Return the joined features, in which nothing is learned, and their lengths."""
        features, lengths = self.normalized(waveform, waveform_lengths, generator)
        return stack_frames(features, lengths, stack=self.config.stack)

    def project(self, x: Float[Tensor, "batch time local_dim"]) -> Float[Tensor, "batch time dim"]:
        """Return the encoder's input for the output of `local`."""
        return self.projection(x)


FRONT_ENDS = {
    "log_mel": (LogMelConfig, LogMelFrontEnd),
    "stacked_log_mel": (StackedLogMelConfig, StackedLogMelFrontEnd),
    "waveform": (WaveformConfig, WaveformFrontEnd),
}
