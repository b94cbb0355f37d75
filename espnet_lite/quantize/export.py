"""From a fake-quantized model to what is packed: integers, their scales, and how each module multiplies.

The packed form computes what the fake-quantized model does: the codes are the same integers, and only
the order of a few fp32 products differs (runtime.quantized says which).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from espnet_lite.config import to_plain
from espnet_lite.errors import InputError
from espnet_lite.quantize.layers import (
    QuantizedConv1d,
    QuantizedConv2d,
    QuantizedDepthwise,
    QuantizedDotProduct,
    QuantizedLinear,
    QuantizedPositional,
    QuantizedRelativeDotProduct,
)
from espnet_lite.quantize.quantizers import (
    AbsmaxActivation,
    ActivationQuantizer,
    BitActivation,
    LsqActivation,
    WeightQuantizer,
)
from espnet_lite.runtime.activations import ActivationFormat
from espnet_lite.runtime.bits import PackedIntegers, pack_integers
from espnet_lite.runtime.quantized import AttentionFormat, Operands, WeightedFormat

WEIGHTED = (
    *(QuantizedLinear, QuantizedDepthwise, QuantizedConv1d, QuantizedConv2d),
    QuantizedPositional,
)
ATTENTIONS = (QuantizedDotProduct, QuantizedRelativeDotProduct)
# Class of an activation quantizer -> its name in the packed format, whose codes it must give exactly.
_FORMATS: dict[type[ActivationQuantizer], str] = {
    BitActivation: "bit",
    LsqActivation: "lsq",
    AbsmaxActivation: "absmax",
}
# What stays in floating point, also by a rule with 16: no quantizer rounds it, and a machine multiplies
# it in what it is fast at.
_FLOAT_BITS = 32


@dataclass(frozen=True)
class Exported:
    """What of a model goes into a packed file.

    Attributes:
        tensors: {name: fp32 tensor or PackedIntegers}; nothing is rounded to bf16 yet.
        quantized: of the header.
    """

    tensors: dict[str, Tensor | PackedIntegers]
    quantized: dict[str, dict]


@torch.no_grad()
def export_model(model: nn.Module) -> Exported:
    """Return the packed form of a model, whatever of it is quantized.

    Raises:
        InputError: weights or scales that are not finite, as of a model that was neither calibrated
            nor trained, or a quantizer of activations that the packed format does not know.
    """
    tensors: dict[str, Tensor | PackedIntegers] = dict(model.state_dict())
    quantized: dict[str, dict] = {}
    for name, module in model.named_modules():
        if isinstance(module, WEIGHTED):
            _need_finite(f"{name}.weight", module.weight)  # codes of what is not are any
            form, own = _weighted(name, module)
        elif isinstance(module, ATTENTIONS):
            form, own = _attention(name, module)
        else:
            continue
        for key in module.state_dict():
            if key not in ("weight", "bias"):  # what quantizers learned
                del tensors[f"{name}.{key}"]
        quantized[name] = form
        tensors |= {f"{name}.{key}": tensor for key, tensor in own.items()}
    for name, tensor in tensors.items():
        if isinstance(tensor, Tensor):
            _need_finite(name, tensor)
    return Exported(tensors, quantized)


def _need_finite(name: str, tensor: Tensor) -> None:
    if not tensor.isfinite().all():
        raise InputError(
            "has values that are not finite",
            where=f"tensor '{name}'",
            fix="pack a model whose training ended well: train it again, or give another experiment",
        )


def _weighted(name: str, layer: nn.Module) -> tuple[dict, dict[str, Tensor | PackedIntegers]]:
    """Return how a layer with weights multiplies, and its tensors but the bias."""
    weights: WeightQuantizer | None = layer.weight_quantizer
    inputs: ActivationQuantizer | None = layer.input_quantizer
    own: dict[str, Tensor | PackedIntegers] = {}
    form = WeightedFormat(
        weight_bits=_FLOAT_BITS if weights is None else _plain_number(weights.bits),
        activation_bits=_FLOAT_BITS if inputs is None else inputs.bits,
        input=None if inputs is None else _format(f"{name}.input", inputs),
    )
    if weights is None:
        own["weight"] = layer.weight.detach()
    else:
        codes = weights.codes(layer.weight)
        own["weight"] = pack_integers(codes.codes, form.stored_bits)
        own["weight_scale"] = codes.scale.flatten().expand(len(layer.weight)).contiguous()
    if inputs is not None:
        own |= {f"input.{key}": number for key, number in _numbers(inputs).items()}
    return to_plain(form), own


def _attention(name: str, attention: nn.Module) -> tuple[dict, dict[str, Tensor]]:
    """Return how the products of attention multiply, and the tensors of its operands."""
    operands = {
        operand: child
        for operand, child in attention.named_children()
        if isinstance(child, ActivationQuantizer)
    }
    bits = max(quantizer.bits for quantizer in operands.values())
    formats = {
        operand: _format(f"{name}.{operand}", quantizer) for operand, quantizer in operands.items()
    }
    form = AttentionFormat(bits, Operands(**formats))
    own = {
        f"{operand}.{key}": number
        for operand, quantizer in operands.items()
        for key, number in _numbers(quantizer).items()
    }
    return to_plain(form), own


def _format(name: str, quantizer: ActivationQuantizer) -> ActivationFormat:
    """Return how the header describes a quantizer; `name` is that of what it quantizes."""
    cls = type(quantizer)
    if cls not in _FORMATS:  # nor a subclass of one: its codes may be others
        raise InputError(
            f"the packed format has no activation quantizer {cls.__name__}, expected one of "
            + ", ".join(known.__name__ for known in _FORMATS),
            where=name,
            fix="name one of these in the policy, or teach the format a new one:"
            " espnet_lite/runtime/activations.py, then espnet_lite/quantize/export.py",
        )
    if quantizer.IS_DYNAMIC:
        return ActivationFormat(_FORMATS[cls], quantizer.bits)
    return ActivationFormat(
        _FORMATS[cls],
        quantizer.bits,
        quantizer.signed,
        quantizer.sparse and cls is BitActivation,
        quantizer.groups,
    )


def _numbers(quantizer: ActivationQuantizer) -> dict[str, Tensor]:
    """Return what the file stores of a quantizer."""
    numbers = {}
    if isinstance(quantizer, (BitActivation, LsqActivation)):
        numbers["scale"] = quantizer.scale().detach().clone()
    if isinstance(quantizer, BitActivation):
        numbers["offset"] = quantizer.threshold().detach().clone()
    return numbers


def _plain_number(bits: float | int) -> int | float:
    """Return 8 for 8.0, as JSON should have it."""
    return int(bits) if bits == int(bits) else bits
