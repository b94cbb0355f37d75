"""Several precisions of the same weights: in each update a module takes one of them at random.

Co-training with stochastic precision (2505.21245): the weights are shared, each precision has scales of
its own, and what is learned at many bits helps where there are few. In evaluation, and in what is
packed, the last member counts: the policy's.
"""

from collections.abc import Iterator, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from espnet_lite.quantize.quantizers import ActivationQuantizer, Codes, WeightQuantizer

_LAST = -1


class _Switch:
    """What both switches share: members, and which of them counts."""

    members: nn.ModuleList
    chosen: int

    def _take(self, members: Sequence[nn.Module]) -> None:
        nn.Module.__init__(self)
        self.members = nn.ModuleList(members)
        self.chosen = _LAST

    def now(self) -> nn.Module:
        """Return the quantizer that counts."""
        return self.members[self.chosen]

    @property
    def bits(self) -> float | int:
        """Return those of the quantizer that counts."""
        return self.now().bits

    def codes(self, x: Float[Tensor, "*shape"]) -> Codes:
        """Return its codes and scale."""
        return self.now().codes(x)

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return its values."""
        return self.now()(x)

    def extra_repr(self) -> str:
        """Return what torch prints of the module."""
        return f"chosen={self.chosen}"


class WeightSwitch(_Switch, WeightQuantizer):
    """Quantizers of the same weights."""

    def __init__(self, members: Sequence[WeightQuantizer]):
        self._take(members)


class ActivationSwitch(_Switch, ActivationQuantizer):
    """Quantizers of the same input."""

    def __init__(self, members: Sequence[ActivationQuantizer]):
        self._take(members)

    @property
    def starting(self) -> bool:
        """Return whether the quantizer that counts is about to be measured."""
        return self.now().starting


Switch = WeightSwitch | ActivationSwitch


def join_precisions(quantized: nn.Module, others: Sequence[nn.Module]) -> None:
    """Make each quantizer of a module a switch between those of `others` and its own.

    Raises:
        ValueError: at one precision an operand is quantized that is not at another.
    """
    if not others:
        return
    for name, own in list(quantized.named_children()):
        if not isinstance(own, (WeightQuantizer, ActivationQuantizer)):
            continue
        members = [dict(other.named_children()).get(name) for other in others]
        if not all(isinstance(m, (WeightQuantizer, ActivationQuantizer)) for m in members):
            raise ValueError(
                f"a further precision leaves {name.replace('_', ' ')} in floating point"
            )
        cls = WeightSwitch if isinstance(own, WeightQuantizer) else ActivationSwitch
        setattr(quantized, name, cls([*members, own]))


def switched(model: nn.Module) -> Iterator[tuple[str, list[Switch]]]:
    """Yield the modules with switches, by name, and their switches."""
    for name, module in model.named_modules():
        found = [child for child in module.children() if isinstance(child, Switch)]
        if found:
            yield name, found


def choose(model: nn.Module, precision: int = _LAST) -> None:
    """Let one precision count everywhere; by default the policy's."""
    for _, switches in switched(model):
        for switch in switches:
            switch.chosen = precision


def choose_at_random(modules: Sequence[list[Switch]], seed: int) -> None:
    """Let each module draw its precision, the same for its weights and inputs."""
    count = len(modules[0][0].members)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(count, (len(modules),), generator=generator).tolist()
    for switches, number in zip(modules, drawn, strict=True):
        for switch in switches:
            switch.chosen = number


def of_last_precision(weights: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Return of a state dict with switches what the same model without them has.

    Args:
        weights: of the model with switches.
        model: without; a weight that it has and `weights` have not is left out.
    """
    kept = {}
    for name in model.state_dict():
        if name in weights:
            kept[name] = weights[name]
            continue
        module, _, attribute = name.rpartition(".")
        numbers = [
            int(key.removeprefix(f"{module}.members.").split(".")[0])
            for key in weights
            if key.startswith(f"{module}.members.")
        ]
        last = f"{module}.members.{max(numbers, default=0)}.{attribute}"
        if last in weights:
            kept[name] = weights[last]
    return kept
