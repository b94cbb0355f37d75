"""The first scales of activations, measured in one forward pass, and a watch over learned scales."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from espnet_lite.errors import InputError
from espnet_lite.quantize.quantizers import ActivationQuantizer
from espnet_lite.quantize.switches import ActivationSwitch

SMALLEST_FACTOR = 1.0e-3  # a scale that is less of what it began with has collapsed


def start_activations(model: nn.Module, run: Callable[[], object]) -> None:
    """Let each quantizer of activations measure its input in `run` and quantize from then on.

    Layers are measured in the order in which they run, each on what the quantized ones before it give,
    as BiT does in its first batch. Of a switch the quantizer is measured that counts.

    Args:
        model: holds quantizers; is in evaluation mode when this returns.
        run: a forward pass in which every frame is valid: `cropped` makes such a batch.

    Raises:
        ValueError: a quantizer that `run` did not reach, or that measured nothing but zeros.
    """
    counting = {
        name: module.now() if isinstance(module, ActivationSwitch) else module
        for name, module in model.named_modules()
        if isinstance(module, ActivationQuantizer) and ".members." not in name
    }
    quantizers = {name: module for name, module in counting.items() if not module.IS_DYNAMIC}
    model.eval()
    for quantizer in quantizers.values():
        quantizer.starting = True
    try:
        with torch.no_grad():
            run()
    finally:
        for quantizer in quantizers.values():
            quantizer.starting = False
    for name, quantizer in quantizers.items():
        if not bool((quantizer.scale_start > 0).all() & quantizer.scale_start.isfinite().all()):
            found = [f"{scale:.3g}" for scale in quantizer.scale_start.tolist()]
            raise ValueError(f"the activations of {name} gave the scale {', '.join(found)}")


def cropped(waveforms: list[Float[Tensor, "_"]]) -> Float[Tensor, "batch samples"]:
    """Return the beginnings of waveforms, as long as the shortest: a batch without padding."""
    shortest = min(len(waveform) for waveform in waveforms)
    return torch.stack([waveform[:shortest] for waveform in waveforms])


# Learned numbers of quantizers and what they stay above: a factor, and a shift, which may be any number.
_FLOORS = {"scale_factor": SMALLEST_FACTOR, "shift": -torch.inf}


class ScaleWatch:
    """Stops a training whose learned scales have collapsed or are no numbers.

    All are looked at in one comparison.
    """

    def __init__(self, model: nn.Module):
        self._watched = [
            (name.rpartition(".")[0], parameter, _FLOORS[name.rpartition(".")[2]])
            for name, parameter in model.named_parameters()
            if name.rpartition(".")[2] in _FLOORS
        ]
        self._floors: Tensor | None = None

    @torch.no_grad()
    def check(self) -> None:
        """Raise an InputError that names the first module with a bad scale."""
        if not self._watched:
            return
        numbers = torch.cat([parameter for _, parameter, _ in self._watched])
        if self._floors is None or self._floors.device != numbers.device:
            floors = [torch.full(p.shape, floor, device=p.device) for _, p, floor in self._watched]
            self._floors = torch.cat(floors)
        if not bool(((numbers > self._floors) & (numbers < torch.inf)).all()):
            raise self._fault()

    def _fault(self) -> InputError:
        """Return the error that names the first module with a bad scale and the scale."""
        for name, parameter, floor in self._watched:
            bad = parameter[~((parameter > floor) & (parameter < torch.inf))]
            if len(bad):
                what = "a learned scale is {:.3g} of what it began with"
                if floor < 0:
                    what = "the threshold of one-bit activations is {:.3g} of their first scale"
                return InputError(
                    what.format(bad[0].item()),
                    where=name,
                    fix="lower training.train.optimizer.lr, or give the module more bits",
                )
        raise AssertionError("all scales are fine")
