"""Kaldi's mel filterbank as a matrix."""

import math

import torch
from torch import Tensor

from espnet_lite.errors import InputError


def hz_to_mel(hz: Tensor | float) -> Tensor:
    """Return Kaldi's mel scale, 1127 ln(1 + f / 700), in float64 (feat/mel-computations.h)."""
    return 1127.0 * torch.log1p(torch.as_tensor(hz, dtype=torch.float64) / 700.0)


def mel_matrix(
    sample_rate: int, *, num_mels: int, fft_samples: int, low_hz: float, high_hz: float
) -> Tensor:
    """Return the triangular filters, (fft_samples / 2 + 1, num_mels), float32.

    Filters are triangles in the mel domain, not in hertz, with peak 1; the Nyquist bin belongs to
    none of them (Kaldi, feat/mel-computations.cc).

    Raises:
        InputError: the band is empty or leaves the spectrum, or a filter is so narrow that no FFT
            bin falls into it.
    """
    nyquist_hz = sample_rate / 2
    if not 0 <= low_hz < high_hz <= nyquist_hz:
        raise InputError(
            f"mel band from {low_hz:g} to {high_hz:g} Hz, expected 0 <= low_hz < high_hz <= "
            f"{nyquist_hz:g} Hz, half the sample rate"
        )
    if num_mels < 1:
        raise InputError(f"num_mels is {num_mels}, expected 1 or more")
    bins = hz_to_mel(torch.arange(fft_samples // 2) * (sample_rate / fft_samples))[:, None]
    low_mel, high_mel = hz_to_mel(low_hz).item(), hz_to_mel(high_hz).item()
    corners = low_mel + torch.arange(num_mels + 2) * ((high_mel - low_mel) / (num_mels + 1))
    left, center, right = corners[:-2], corners[1:-1], corners[2:]
    filters = torch.minimum((bins - left) / (center - left), (right - bins) / (right - center))
    filters = filters.clamp_min(0.0)
    empty = (filters.amax(dim=0) == 0).nonzero().flatten().tolist()
    if empty:
        raise InputError(
            f"num_mels is {num_mels}, too many for {fft_samples} FFT samples at {sample_rate} Hz: "
            f"mel filter {empty[0]} has no frequency bin; choose fewer"
        )
    nyquist_row = torch.zeros(1, num_mels, dtype=filters.dtype)
    return torch.cat([filters, nyquist_row]).float()


def dct_matrix(num_mels: int, num_ceps: int) -> Tensor:
    """Return the orthonormal DCT-II of Kaldi, (num_mels, num_ceps), float64."""
    mel = torch.arange(num_mels, dtype=torch.float64)[:, None] + 0.5
    order = torch.arange(num_ceps, dtype=torch.float64)
    matrix = math.sqrt(2.0 / num_mels) * torch.cos(math.pi / num_mels * mel * order)
    matrix[:, 0] = math.sqrt(1.0 / num_mels)
    return matrix
