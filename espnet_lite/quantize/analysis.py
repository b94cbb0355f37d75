"""Where a quantized recognizer errs: in which modules, by their own quantization or by what they are given,
and whether the errors of attention and of convolution make each other worse.

The study this project implements supposes that a Conformer loses more at few bits than attention alone
because errors propagate between quantized convolution and quantized attention (2311.02772). Three
measurements test it. Units are the modules of a block that its residual adds up: attention,
feed-forward, convolution; r is the reference network, q the quantized one.

- Four runs of each unit, its input from r or from q, the unit itself of r or of q: y(input, unit). Its
  own error is ‖y(r, q) − y(r, r)‖, the propagated one ‖y(q, r) − y(r, r)‖, the interaction ‖y(q, q) −
  y(r, q) − y(q, r) + y(r, r)‖, what neither explains; all divided by ‖y(r, r)‖.
- Signal to quantization noise of each layer: 10 log₁₀ (‖x_r‖² / ‖x_q − x_r‖²).
- Hybrids: the reference network in which the units of one kind, or of two, are the quantized
  network's. Their error rates; their synergy, what two kinds lose together beyond what each loses
  alone; and what a hybrid of one kind does to the outputs of the units of another.

Reference: of a model quantized after training its own fp32 weights; of one trained in few bits the teacher
it was distilled from, since a student's latent weights are no network in floating point. Its units then
differ from the teacher's by their training too, not only by their bits.

Utterances run one at a time, so that every frame is valid.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from espnet_lite.nn.attention import MultiHeadAttention
from espnet_lite.nn.convolution import ConvolutionModule
from espnet_lite.nn.ctc_loss import ctc_loss
from espnet_lite.nn.feed_forward import FeedForward
from espnet_lite.nn.relative_attention import RelativeAttention

UNITS: dict[type[nn.Module], str] = {
    MultiHeadAttention: "attention",
    RelativeAttention: "attention",
    FeedForward: "feed_forward",
    ConvolutionModule: "convolution",
}
KINDS = ("attention", "feed_forward", "convolution")


def find_units(model: nn.Module) -> dict[str, str]:
    """Return `{name: kind}` of the units of `model.encoder`, in the order of their blocks."""
    return {
        f"encoder.{name}": UNITS[type(module)]
        for name, module in model.encoder.named_modules()
        if type(module) in UNITS
    }


@dataclass(frozen=True)
class UnitError:
    """Errors of one unit over all frames of a set, relative to ‖y(r, r)‖."""

    name: str
    kind: str
    own: float
    propagated: float
    interaction: float
    total: float  # of y(q, q)


@dataclass(frozen=True)
class Recording:
    """What a network computed for one utterance.

    Attributes:
        inputs: {unit: its arguments}.
        outputs: {unit: its output}.
        layers: the encoder's, from its input on.
        log_probs: (time, vocab).
    """

    inputs: dict[str, tuple]
    outputs: dict[str, Tensor]
    layers: list[Tensor]
    log_probs: Tensor


@torch.no_grad()
def record(model: nn.Module, waveform: Tensor, units: Sequence[str] = ()) -> Recording:
    """Return what `model` (front_end, encoder, ctc_log_probs) computes for a waveform (samples)."""
    inputs: dict[str, tuple] = {}
    outputs: dict[str, Tensor] = {}

    def keep(name: str) -> Callable:
        def hook(module, arguments, output):
            inputs[name], outputs[name] = arguments, output

        return hook

    handles = [model.get_submodule(name).register_forward_hook(keep(name)) for name in units]
    try:
        features, lengths = model.front_end(waveform[None], torch.tensor([len(waveform)]), None)
        found = model.encoder(features, lengths, return_layers=True)
    finally:
        for handle in handles:
            handle.remove()
    valid = int(lengths[0])  # 0 where the utterance has no frame
    layers = [layer[0, :valid] for layer in found.layers]
    return Recording(inputs, outputs, layers, model.ctc_log_probs(found.encoded)[0, :valid])


class UnitErrors:
    """Sums of squares of the four runs of each unit, over the utterances that are added."""

    def __init__(self, reference: nn.Module, quantized: nn.Module):
        self.reference, self.quantized = reference, quantized
        self.units = find_units(reference)
        self._sums = {name: torch.zeros(5, dtype=torch.float64) for name in self.units}

    @torch.no_grad()
    def add(self, of_reference: Recording, of_quantized: Recording) -> None:
        """Add the utterance of two recordings of all units."""
        for name in self.units:
            rr, qq = of_reference.outputs[name], of_quantized.outputs[name]
            rq = self.quantized.get_submodule(name)(*of_reference.inputs[name])
            qr = self.reference.get_submodule(name)(*of_quantized.inputs[name])
            parts = (rr, rq - rr, qr - rr, qq - rq - qr + rr, qq - rr)
            self._sums[name] += torch.stack([part.double().square().sum() for part in parts])

    def errors(self) -> list[UnitError]:
        """Return the errors of all units."""
        found = []
        for name, kind in self.units.items():
            own, propagated, interaction, total = (
                (self._sums[name][1:] / self._sums[name][0]).sqrt().tolist()
            )
            found.append(UnitError(name, kind, own, propagated, interaction, total))
        return found


class LayerNoise:
    """Signal and noise of each layer, over the utterances that are added."""

    def __init__(self):
        self._sums: Tensor | None = None

    def add(self, of_reference: Recording, of_quantized: Recording) -> None:
        """Add one utterance."""
        pairs = zip(of_reference.layers, of_quantized.layers, strict=True)
        sums = torch.tensor(
            [[x.double().square().sum(), (y - x).double().square().sum()] for x, y in pairs]
        )
        self._sums = sums if self._sums is None else self._sums + sums

    def sqnr_db(self) -> list[float]:
        """Return the ratio of each layer, the encoder's input first, in dB."""
        signal, noise = self._sums.clamp_min(1e-30).unbind(dim=1)
        return (10 * (signal / noise).log10()).tolist()


@contextlib.contextmanager
def hybrid(reference: nn.Module, quantized: nn.Module, kinds: Sequence[str]) -> Iterator[nn.Module]:
    """Yield the reference network in which units of these kinds are the quantized network's; afterwards
    it has its own again."""
    names = [name for name, kind in find_units(reference).items() if kind in kinds]
    own = {name: reference.get_submodule(name) for name in names}
    try:
        for name in names:
            _put(reference, name, quantized.get_submodule(name))
        yield reference
    finally:
        for name, module in own.items():
            _put(reference, name, module)


def _put(model: nn.Module, name: str, module: nn.Module) -> None:
    holder, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(holder), attribute, module)


def subsets(kinds: Sequence[str]) -> list[tuple[str, ...]]:
    """Return one kind at a time, then each pair, then all where these are three."""
    found = [(kind,) for kind in kinds]
    found += [(a, b) for i, a in enumerate(kinds) for b in kinds[i + 1 :]]
    return found + ([tuple(kinds)] if len(kinds) > 2 else [])


class Disturbance:
    """What a hybrid does to the outputs of the units of each kind, relative to the reference's."""

    def __init__(self, units: dict[str, str]):
        self._units = units
        self._sums = {kind: [0.0, 0.0] for kind in dict.fromkeys(units.values())}

    def add(self, of_reference: Recording, of_hybrid: Recording) -> None:
        """Add one utterance."""
        for name, kind in self._units.items():
            x = of_reference.outputs[name].double()
            y = of_hybrid.outputs[name].double()
            # Each unit counts alike, whatever the size of its output.
            self._sums[kind][0] += ((y - x).square().sum() / x.square().sum()).item()
            self._sums[kind][1] += 1

    def relative(self) -> dict[str, float]:
        """Return the root of the mean over units and utterances of ‖y − x‖² / ‖x‖², by kind."""
        return {kind: (total / count) ** 0.5 for kind, (total, count) in self._sums.items()}


@dataclass(frozen=True)
class Outcome:
    """What a network made of one utterance.

    Attributes:
        errors, words: of the greedy hypothesis, and of the reference.
        disagreeing, frames: frames whose most probable token is not the reference network's.
        loss_ctc: nats; 0 where CTC cannot align the tokens.
    """

    errors: int
    words: int
    disagreeing: int
    frames: int
    loss_ctc: float


def transcript_loss(log_probs: Tensor, tokens: Tensor) -> float:
    """Return the CTC loss of one utterance in nats; 0 where it has too few frames."""
    lengths = torch.tensor([[len(log_probs)], [len(tokens)]])
    return ctc_loss(log_probs[None], lengths[0], tokens[None], lengths[1]).item()
