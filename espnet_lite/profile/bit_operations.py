"""What few bits would save where hardware multiplied bit by bit: an estimate, and never a speed.

BOPs: the sum of MACs · bits of one factor · bits of the other (as in Baskin et al. 2018, 1804.10969,
without their term for the sums). Weighted MACs: the sum of MACs · bits of the weights / 32, which counts
what is read of weights. Neither knows of memory, of instructions, or of what lies between products.
"""

from collections.abc import Mapping
from dataclasses import dataclass

FULL_BITS = 32  # of what a policy leaves alone
_WEIGHT = ".weight"
_BITS = {"fp32": 32, "bf16": 16, "int64": 64}  # of encodings; int1 … int8 are in the policy


@dataclass(frozen=True)
class FactorBits:
    """Bits of the two factors of a module's products: weights and activations, or two activations."""

    weight: int | float = FULL_BITS
    activation: int | float = FULL_BITS


def factor_bits(header: Mapping) -> dict[str, FactorBits]:
    """Return `{module: bits}` of a packed model's header, of what is not 32 bits by 32.

    Weights that are only stored in bf16 count 16 bits, their activations 32. So do those of a rule with
    `activation_bits: 16`, which as 32 leaves them in floating point: no quantizer rounds them, and the
    file says 32.
    """
    bits = {
        name.removesuffix(_WEIGHT): FactorBits(weight=_BITS[entry["encoding"]])
        for name, entry in header["tensors"].items()
        if name.endswith(_WEIGHT) and entry["encoding"] in _BITS
    }
    for name, module in header.get("quantized", {}).items():
        activation = module["activation_bits"]
        bits[name] = FactorBits(module.get("weight_bits", activation), activation)
    return bits


def bit_operations(by_module: Mapping[str, int], bits: Mapping[str, FactorBits]) -> dict[str, int]:
    """Return `{"bops": …, "weighted_macs": …}` of MACs by module; a module without bits has 32 by 32."""
    bops = weighted = 0.0
    for name, macs in by_module.items():
        factors = bits.get(name, FactorBits())
        bops += macs * factors.weight * factors.activation
        weighted += macs * factors.weight / FULL_BITS
    return {"bops": round(bops), "weighted_macs": round(weighted)}
