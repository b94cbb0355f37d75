"""Log mel filterbank equal to Kaldi's `compute-fbank-feats --dither=0`, batched and in torch.

Source of the definition: Kaldi, feat/feature-window.cc and feat/feature-fbank.cc.
"""

import contextlib
import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from espnet_lite.errors import InputError
from espnet_lite.features.mel import mel_matrix
from espnet_lite.nn.masks import valid_mask

# Kaldi reads 16-bit integers; ours are the same samples in [-1, 1].
INT16_SCALE = 32768.0
# Kaldi floors an energy at float32's epsilon before the logarithm.
ENERGY_FLOOR = torch.finfo(torch.float32).eps
# Frames in one pass on a CPU: 1,024 x 512 floats = 2 MB stay in the cache, and the allocator
# reuses them, while a whole batch would be written to fresh pages of main memory five times
# (tools/benchmarks/fbank.py).
CPU_CHUNK_FRAMES = 1024


def window_samples(sample_rate: int, duration_ms: float) -> int:
    """Return Kaldi's count of samples in `duration_ms`: truncated, not rounded."""
    return int(sample_rate * 0.001 * duration_ms)


def num_frames(num_samples, window: int, shift: int):
    """Return the frames of Kaldi's snip_edges, 1 + (n - window) // shift; 0 when n < window.

    `num_samples` is an int or an integer tensor; the result is of the same kind.
    """
    if isinstance(num_samples, Tensor):
        return ((num_samples - window).div(shift, rounding_mode="floor") + 1).clamp_min(0)
    return max(0, 1 + (num_samples - window) // shift)


@contextlib.contextmanager
def exact_float32_matmul() -> Iterator[None]:
    """Keep products in true float32: TF32 or bf16, which programs may allow, moves log mels by 1e-3."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


class Fbank(nn.Module):
    """Log mel energies (batch, frames, mels) of waveforms in [-1, 1] (batch, samples).

    Povey window, DC removal and preemphasis in each frame, power spectrum, no dither, snip_edges.
    Frames beyond an utterance's own count are zero, and what stands in the padding changes no valid
    frame, as long as it is finite. Computed in float32 whatever autocast says; no gradient reaches the waveform.
    """

    def __init__(
        self,
        sample_rate: int = 16000,
        *,
        num_mels: int = 80,
        low_hz: float = 20.0,
        high_hz: float | None = None,
        window_ms: float = 25.0,
        shift_ms: float = 10.0,
        preemphasis: float = 0.97,
    ):
        """Build window and filters.

        Args:
            sample_rate: in Hz.
            num_mels: filters; 80 for recognition, 23 under Kaldi's MFCC.
            low_hz: lower edge of the first filter.
            high_hz: upper edge of the last filter; None is half the sample rate.
            window_ms: length of a frame; the FFT takes the next power of two of its samples.
            shift_ms: from frame to frame.
            preemphasis: coefficient of the preceding sample.

        Raises:
            InputError: a window or shift without samples, or a mel band that cannot be.
        """
        super().__init__()
        self.sample_rate = sample_rate
        self.num_mels = num_mels
        self.preemphasis = preemphasis
        self.window = window_samples(sample_rate, window_ms)
        self.shift = window_samples(sample_rate, shift_ms)
        if self.window < 2 or self.shift < 1:
            raise InputError(
                f"window_ms {window_ms:g} and shift_ms {shift_ms:g} are {self.window} and "
                f"{self.shift} samples at {sample_rate} Hz, expected at least 2 and 1"
            )
        self.fft_samples = 1 << (self.window - 1).bit_length()
        povey = torch.hann_window(self.window, periodic=False, dtype=torch.float64).pow(0.85)
        # Zeros up to the FFT's length: framing, windowing and padding are then one pass.
        padded = F.pad(povey, (0, self.fft_samples - self.window)).float()
        filters = mel_matrix(
            sample_rate,
            num_mels=num_mels,
            fft_samples=self.fft_samples,
            low_hz=low_hz,
            high_hz=sample_rate / 2 if high_hz is None else high_hz,
        )
        # Made from the numbers above, so they are not part of a checkpoint.
        self.register_buffer("povey_window", padded, persistent=False)
        self.register_buffer("mel_filters", filters, persistent=False)

    def feature_lengths(self, waveform_lengths: Int[Tensor, "batch"]) -> Int[Tensor, "batch"]:
        """Return the frames of waveforms of so many samples."""
        return num_frames(waveform_lengths, self.window, self.shift)

    @torch.no_grad()
    def forward(
        self, waveform: Float[Tensor, "batch samples"], waveform_lengths: Int[Tensor, "batch"]
    ) -> tuple[Float[Tensor, "batch frames mels"], Int[Tensor, "batch"]]:
        lengths = self.feature_lengths(waveform_lengths)
        log_mels = self.log_mels(waveform)
        valid = valid_mask(lengths, log_mels.size(1))
        return torch.where(valid[..., None], log_mels, 0.0), lengths

    def log_mels(self, waveform: Float[Tensor, "batch samples"]) -> Float[Tensor, "batch frames m"]:
        """Return the log mel energies of every frame, padding included."""
        batch, samples = waveform.shape
        frames = num_frames(samples, self.window, self.shift)
        if batch == 0 or frames == 0:
            return waveform.new_zeros(batch, frames, self.num_mels, dtype=torch.float32)
        # All rows lie one after the other at a multiple of the shift, so that one strided view
        # frames the whole batch; the few frames that reach into the next row are dropped. The gap
        # of zeros keeps a row out of its neighbours' frames, even where the window is zero.
        gap = self.fft_samples - self.window + 1
        row_frames = math.ceil((samples + gap) / self.shift)
        row_samples = row_frames * self.shift
        total = batch * row_frames
        flat = waveform.new_zeros(1 + batch * row_samples + self.fft_samples, dtype=torch.float32)
        rows = flat[1 : 1 + batch * row_samples].view(batch, row_samples)
        torch.mul(waveform, INT16_SCALE, out=rows[:, :samples])
        # Preemphasis x[t] - 0.97 x[t-1] of the frame without its mean m is the difference
        # x[t] - x[t-1], taken once of the whole waveform, plus 0.03 (x[t-1] - m). Kaldi's other
        # rule for the first sample of a frame is without effect: the Povey window is 0 there.
        difference = flat.diff()
        size = (total, self.fft_samples)
        previous = flat.as_strided(size, (self.shift, 1))
        framed = difference.as_strided(size, (self.shift, 1))
        raw = flat[1:].as_strided((total, self.window), (self.shift, 1))
        log_mels = flat.new_empty(total, self.num_mels)
        chunk = CPU_CHUNK_FRAMES if flat.device.type == "cpu" else total
        with exact_float32_matmul(), torch.autocast(flat.device.type, enabled=False):
            for start in range(0, total, chunk):
                part = slice(start, start + chunk)
                self._chunk(raw[part], previous[part], framed[part], log_mels[part])
        return log_mels.view(batch, row_frames, self.num_mels)[:, :frames]

    def _chunk(
        self,
        raw: Float[Tensor, "n window"],
        previous: Float[Tensor, "n fft"],
        difference: Float[Tensor, "n fft"],
        log_mels: Float[Tensor, "n mels"],
    ) -> None:
        """Fill `log_mels` from frames of x[t], of x[t-1] and of x[t] - x[t-1]."""
        centered = previous - raw.mean(dim=-1, keepdim=True)
        emphasized = torch.add(difference, centered, alpha=1.0 - self.preemphasis)
        windowed = emphasized.mul_(self.povey_window)
        squares = torch.view_as_real(torch.fft.rfft(windowed)).square()
        power = squares[..., 0] + squares[..., 1]
        torch.mm(power, self.mel_filters, out=log_mels)
        log_mels.clamp_min_(ENERGY_FLOOR).log_()
