"""Mel-frequency cepstral coefficients equal to Kaldi's `compute-mfcc-feats --dither=0`."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from espnet_lite.errors import InputError
from espnet_lite.features.fbank import ENERGY_FLOOR, INT16_SCALE, Fbank, exact_float32_matmul
from espnet_lite.features.mel import dct_matrix
from espnet_lite.nn.masks import valid_mask


class Mfcc(nn.Module):
    """Cepstra (batch, frames, num_ceps) of waveforms in [-1, 1] (batch, samples).

    Frames beyond an utterance's own count are zero, and padding changes no valid frame. Computed in
    float32 whatever autocast says; no gradient reaches the waveform. HuBERT's first units are made
    of 13 of them with `use_energy=False` and `add_deltas`: 39 dimensions.
    """

    def __init__(
        self,
        sample_rate: int = 16000,
        *,
        num_ceps: int = 13,
        num_mels: int = 23,
        low_hz: float = 20.0,
        high_hz: float | None = None,
        cepstral_lifter: float = 22.0,
        use_energy: bool = True,
        window_ms: float = 25.0,
        shift_ms: float = 10.0,
    ):
        """Build filters and transform; the defaults are Kaldi's.

        Args:
            sample_rate: in Hz.
            num_ceps: coefficients, the zeroth included.
            num_mels: filters under the transform.
            low_hz: lower edge of the first filter.
            high_hz: upper edge of the last filter; None is half the sample rate.
            cepstral_lifter: Q of the scale 1 + Q/2 sin(πi / Q) of coefficient i; 0 for none.
            use_energy: the zeroth is the log energy of the frame before preemphasis and window.
            window_ms: length of a frame.
            shift_ms: from frame to frame.

        Raises:
            InputError: more coefficients than filters, or what Fbank refuses.
        """
        super().__init__()
        if not 1 <= num_ceps <= num_mels:
            raise InputError(f"num_ceps is {num_ceps}, expected 1 to num_mels, which is {num_mels}")
        self.use_energy = use_energy
        self.fbank = Fbank(
            sample_rate,
            num_mels=num_mels,
            low_hz=low_hz,
            high_hz=high_hz,
            window_ms=window_ms,
            shift_ms=shift_ms,
        )
        transform = dct_matrix(num_mels, num_ceps)
        if cepstral_lifter > 0:
            order = torch.arange(num_ceps, dtype=torch.float64)
            scale = torch.sin(math.pi * order / cepstral_lifter) * (0.5 * cepstral_lifter)
            transform = transform * (1.0 + scale)
        self.register_buffer("transform", transform.float(), persistent=False)

    def feature_lengths(self, waveform_lengths: Int[Tensor, "batch"]) -> Int[Tensor, "batch"]:
        """Return the frames of waveforms of so many samples."""
        return self.fbank.feature_lengths(waveform_lengths)

    @torch.compiler.disable
    @torch.no_grad()
    def forward(
        self, waveform: Float[Tensor, "batch samples"], waveform_lengths: Int[Tensor, "batch"]
    ) -> tuple[Float[Tensor, "batch frames ceps"], Int[Tensor, "batch"]]:
        lengths = self.feature_lengths(waveform_lengths)
        log_mels = self.fbank.log_mels(waveform)
        with exact_float32_matmul(), torch.autocast(waveform.device.type, enabled=False):
            cepstra = torch.matmul(log_mels, self.transform)
        if self.use_energy and cepstra.size(1) > 0:
            cepstra[..., 0] = self._log_energy(waveform)
        valid = valid_mask(lengths, cepstra.size(1))
        return torch.where(valid[..., None], cepstra, 0.0), lengths

    def _log_energy(
        self, waveform: Float[Tensor, "batch samples"]
    ) -> Float[Tensor, "batch frames"]:
        """Return log Σ (x - mean of the frame)² of 16-bit samples."""
        scaled = waveform.float() * INT16_SCALE
        raw = scaled.unfold(-1, self.fbank.window, self.fbank.shift)
        energy = raw.var(dim=-1, correction=0) * self.fbank.window
        return energy.clamp_min(ENERGY_FLOOR).log()
