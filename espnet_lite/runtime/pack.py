"""From fp32 weights to the tensors of a packed file, by a policy."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from espnet_lite.runtime.bits import PackedIntegers
from espnet_lite.runtime.packed_model import DECODER_PREFIX

WEIGHTS = ("fp32", "bf16")
PROBE_SECONDS = 4.0
TRAINING_PREFIXES = ("input_mask.",)  # parts of a recognizer that only its training uses


@dataclass(frozen=True)
class PackPolicy:
    """How the weights of a model are stored (conf/quantize_*.yaml).

    bf16 is for matrices and convolution kernels (two dimensions or more). Biases, those of relative
    attention with their two dimensions among them, normalization scales and CMVN statistics stay fp32:
    together they are under a hundredth of the file, and an 8-bit mantissa would move every frame by
    their rounding.
    """

    weights: str = "bf16"  # fp32 | bf16
    decoder: bool = False  # keep the attention decoder's section, where the model has one

    def __post_init__(self):
        if self.weights not in WEIGHTS:
            raise ValueError(f"weights '{self.weights}' is not one of {', '.join(WEIGHTS)}")


def apply_policy(
    weights: dict[str, Tensor | PackedIntegers], policy: PackPolicy
) -> dict[str, Tensor | PackedIntegers]:
    """Return what is stored of fp32 `weights` (a recognizer's state dict): decoder kept or left
    out, what only training uses left out, matrices rounded to nearest even where the policy says bf16.
    Integers stay as they are."""
    kept = {
        name: tensor
        for name, tensor in weights.items()
        if not name.startswith(TRAINING_PREFIXES)
        and (policy.decoder or not name.startswith(DECODER_PREFIX))
    }
    if policy.weights == "fp32":
        return kept
    return {name: _rounded(name, tensor) for name, tensor in kept.items()}


def _rounded(name: str, tensor: Tensor | PackedIntegers) -> Tensor | PackedIntegers:
    """Return a floating-point matrix or kernel in bf16, everything else as it is."""
    if isinstance(tensor, PackedIntegers) or not tensor.is_floating_point():
        return tensor
    return tensor if tensor.ndim < 2 or name.endswith("bias") else tensor.bfloat16()


def synthetic_waveform(seconds: float, sample_rate: int) -> Float[Tensor, "1 samples"]:
    """Return noise and a rising tone whose loudness changes four times a second: always the same."""
    count = round(seconds * sample_rate)
    time = torch.arange(count) / sample_rate
    noise = torch.randn(count, generator=torch.Generator().manual_seed(0))
    tone = torch.sin(2 * torch.pi * (200 + 200 * time) * time)
    loudness = 0.55 + 0.45 * torch.sin(2 * torch.pi * 4 * time)
    return (loudness * (0.2 * tone + 0.02 * noise))[None]


@torch.no_grad()
def largest_difference(first: nn.Module, second: nn.Module, *, sample_rate: int) -> float:
    """Return the largest |difference| of log-probabilities of two forms of one model (packed or
    trained: with `encode` and `ctc_log_probs`), on a synthetic waveform."""
    waveform = synthetic_waveform(PROBE_SECONDS, sample_rate)
    lengths = torch.tensor([waveform.size(1)])
    outputs = [model.encode(waveform, lengths) for model in (first, second)]
    one, other = (
        model.ctc_log_probs(output.encoded)[0, : int(output.lengths[0])]
        for model, output in zip((first, second), outputs, strict=True)
    )
    return (one - other).abs().max().item()
