"""What units are clusters of: MFCCs for the first ones, a layer of a trained model for the next."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from espnet_lite.errors import InputError
from espnet_lite.features.deltas import add_deltas
from espnet_lite.features.frame_grid import FrameGrid
from espnet_lite.features.mfcc import Mfcc
from espnet_lite.nn.masks import valid_mask


@runtime_checkable
class UnitFeatures(Protocol):
    """What k-means asks of features.

    Attributes:
        grid: where the frames lie in the waveform.
        dim: numbers in a frame.
        description: what they are, JSON-able; stands in units.json.
    """

    grid: FrameGrid
    dim: int
    description: dict

    def __call__(
        self, waveform: Float[Tensor, "batch samples"], lengths: Int[Tensor, "batch"]
    ) -> tuple[Float[Tensor, "batch frames dim"], Int[Tensor, "batch"]]:
        """Return padded frames and how many of each utterance are valid."""
        ...


class MfccUnitFeatures:
    """13 MFCCs with first and second derivatives, 39 dimensions, 100 frames a second, no CMVN.

    The features of HuBERT's first units (Hsu et al. 2021, §4.2; fairseq dump_mfcc_feature.py).
    """

    def __init__(self, sample_rate: int = 16000):
        self._mfcc = Mfcc(sample_rate, use_energy=False)
        fbank = self._mfcc.fbank
        self.grid = FrameGrid(sample_rate, fbank.window, fbank.shift)
        self.dim = 39
        self.description = {"name": "mfcc", "ceps": 13, "deltas": 2, "use_energy": False}

    def to(self, device: torch.device | str) -> "MfccUnitFeatures":
        """Return self, computing on `device`."""
        self._mfcc.to(device)
        return self

    @torch.no_grad()
    def __call__(
        self, waveform: Float[Tensor, "batch samples"], lengths: Int[Tensor, "batch"]
    ) -> tuple[Float[Tensor, "batch frames dim"], Int[Tensor, "batch"]]:
        """Return padded frames and how many of each utterance are valid."""
        cepstra, frame_lengths = self._mfcc(waveform, lengths)
        return add_deltas(cepstra, frame_lengths), frame_lengths


@runtime_checkable
class LayerOutput(Protocol):
    """What an encoder returns when asked for its layers: frames of each, and how many are valid."""

    layers: list[Tensor]  # (batch, time, dim) each; the first is the encoder's input
    lengths: Tensor  # (batch,)


class LayerUnitFeatures:
    """The output of one layer of a trained encoder, as HuBERT's later units are made of.

    Which model it is only the caller knows: `encode` is any call that returns all layers.
    """

    def __init__(
        self,
        encode: Callable[..., LayerOutput],
        *,
        layer: int,
        grid: FrameGrid,
        description: dict,
        device: torch.device | str = "cpu",
    ):
        """Hold the call, and make it once to see which layers there are.

        Args:
            encode: (waveform, lengths, return_layers=True) → LayerOutput.
            layer: 0 is the encoder's input, i the output of block i.
            grid: of the model's front end.
            description: what the model is, JSON-able; the layer is added.
            device: of the model.

        Raises:
            InputError: no such layer.
        """
        self._encode = encode
        self.grid = grid
        probe = torch.zeros(1, grid.window_samples + grid.shift_samples, device=device)
        with torch.inference_mode():
            layers = encode(
                probe, torch.tensor([probe.size(1)], device=device), return_layers=True
            ).layers
        if not 0 <= layer < len(layers):
            raise InputError(
                f"layer {layer} of a model with {len(layers) - 1}, expected 0 (the encoder's input) "
                f"to {len(layers) - 1}",
                where="--layer",
            )
        self._layer = layer
        self.dim = layers[layer].size(2)
        self.description = {"name": "layer", "layer": layer, **description}

    @torch.inference_mode()
    def __call__(
        self, waveform: Float[Tensor, "batch samples"], lengths: Int[Tensor, "batch"]
    ) -> tuple[Float[Tensor, "batch frames dim"], Int[Tensor, "batch"]]:
        """Return padded frames and how many of each utterance are valid."""
        # A convolution refuses what is shorter than its kernel.
        missing = max(0, self.grid.window_samples - waveform.size(1))
        output = self._encode(
            torch.nn.functional.pad(waveform, (0, missing)), lengths, return_layers=True
        )
        return output.layers[self._layer].float(), output.lengths


class WithoutUtteranceMean:
    """Features less their mean over the utterance: what stays is not the speaker nor the channel.

    As cepstral mean normalization does it for recognizers (Atal 1974). Where a short pre-training has
    left speaker and channel in its features, clusters divide by them before they divide by phones.
    """

    def __init__(self, features: UnitFeatures):
        """Hold the features."""
        self._features = features
        self.grid = features.grid
        self.dim = features.dim
        self.description = {**features.description, "subtract_mean": True}

    @torch.no_grad()
    def __call__(
        self, waveform: Float[Tensor, "batch samples"], lengths: Int[Tensor, "batch"]
    ) -> tuple[Float[Tensor, "batch frames dim"], Int[Tensor, "batch"]]:
        """Return padded frames and how many of each utterance are valid."""
        frames, frame_lengths = self._features(waveform, lengths)
        valid = valid_mask(frame_lengths, frames.size(1))[..., None]
        total = torch.where(valid, frames, 0.0).sum(dim=1, keepdim=True)
        return frames - total / frame_lengths.clamp(min=1)[:, None, None], frame_lengths
