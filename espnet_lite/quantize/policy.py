"""Which modules of a model get how many bits: rules over module kinds, put in from outside.

Encoders know nothing of it. A rule takes modules by their kind (nn.kinds) and gives bits to weights and
activations; which quantizer does it follows from the bits and from what the module is, unless the
rule names one. Modules that no rule takes stay as they are: norms and softmax always, front end,
subsampling and head unless a rule names their kinds.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn

from espnet_lite.errors import InputError, unknown_name
from espnet_lite.nn.attention import DotProductAttention, MultiHeadAttention
from espnet_lite.nn.convolution import DepthwiseConvolution
from espnet_lite.nn.feed_forward import FeedForward
from espnet_lite.nn.kinds import KINDS, module_kinds
from espnet_lite.nn.local_attention import LocalAttention
from espnet_lite.nn.positional_convolution import PositionalConvolution
from espnet_lite.nn.relative_attention import RelativeAttention, RelativeDotProduct
from espnet_lite.nn.subsampling import Conv2dSubsampling4
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
    ACTIVATION_QUANTIZERS,
    TERNARY_BITS,
    WEIGHT_QUANTIZERS,
    ActivationQuantizer,
    WeightQuantizer,
)
from espnet_lite.quantize.switches import ActivationSwitch, WeightSwitch, join_precisions

WEIGHT_BITS = (1, TERNARY_BITS, 2, 3, 4, 5, 6, 7, 8, 16, 32)
ACTIVATION_BITS = (1, 2, 3, 4, 5, 6, 7, 8, 16, 32)
FLOATING = 16  # from so many bits on numbers are floating point, and nothing is put in
GRANULARITIES = ("channel", "tensor")
NOT_QUANTIZED = ("features", "embedding", "decoder")
WITHOUT_WEIGHTS = "attention_matmul"  # the kind of products of activations alone
TABLE_BITS = 8  # of activations that are a table of positions: at least so many

# Inputs that are never below 0, by the class of what holds the module; and inputs that are a table
# of positions, the same for any speech, which one bit would turn into square waves.
_NOT_NEGATIVE: tuple[tuple[type, tuple[str, ...], Callable[[nn.Module], bool]], ...] = (
    (FeedForward, ("contract",), lambda holder: isinstance(holder.activation, nn.ReLU)),
    (Conv2dSubsampling4, ("second", "second.0", "project"), lambda _: True),
)
_TABLES = ((RelativeAttention, ("position",)),)


@dataclass(frozen=True)
class Rule:
    """Bits for the modules of some kinds."""

    kinds: tuple[
        str, ...
    ]  # attention_linear | attention_matmul | feed_forward | conv_pointwise | …
    weight_bits: float | int = 32  # 1 | 1.58 | 2 … 8 | 16 | 32; attention_matmul has no weights
    activation_bits: int = 32  # of what comes into the product: 1 … 8 | 16 | 32
    weight_quantizer: str | None = None  # null: bit at 1, ternary at 1.58, lsq at 2 to 8 | absmax
    activation_quantizer: str | None = None  # null: bit at 1, lsq, absmax (by token) at 8
    granularity: str = "channel"  # what has a weight scale of its own: channel | tensor
    modules: tuple[str, ...] = ("*",)  # only those whose name fits: encoder.blocks.0.*

    def __post_init__(self):
        for kind in self.kinds:
            if kind not in KINDS:
                raise ValueError(str(unknown_name("kind of module", kind, _QUANTIZED_KINDS)))
            if kind in NOT_QUANTIZED:
                known = ", ".join(_QUANTIZED_KINDS)
                raise ValueError(f"kind '{kind}' cannot be quantized, only {known}")
        if not self.kinds or len(set(self.kinds)) < len(self.kinds):
            raise ValueError(f"kinds {list(self.kinds)} are none, or one of them stands twice")
        if self.weight_bits not in WEIGHT_BITS:
            raise ValueError(
                f"weight_bits {self.weight_bits:g} is not one of {_listed(WEIGHT_BITS)}"
            )
        if self.activation_bits not in ACTIVATION_BITS:
            bits = _listed(ACTIVATION_BITS)
            raise ValueError(f"activation_bits {self.activation_bits} is not one of {bits}")
        if self.granularity not in GRANULARITIES:
            raise ValueError(f"granularity '{self.granularity}' is not channel or tensor")
        _check_quantizer("weight", self.weight_quantizer, self.weight_bits, WEIGHT_QUANTIZERS)
        _check_quantizer(
            "activation", self.activation_quantizer, self.activation_bits, ACTIVATION_QUANTIZERS
        )

    def at_least(self, *, weight_bits: float | int, activation_bits: int) -> "Rule":
        """Return the rule with no fewer bits than these, for a step on the way to it.

        A side that gets more bits gets their default quantizer.
        """
        raised = {}
        if self.weight_bits < weight_bits:
            raised |= {"weight_bits": weight_bits, "weight_quantizer": None}
        if self.activation_bits < activation_bits:
            raised |= {"activation_bits": activation_bits, "activation_quantizer": None}
        return dataclasses.replace(self, **raised)


_QUANTIZED_KINDS = tuple(kind for kind in KINDS if kind not in NOT_QUANTIZED)


def _listed(numbers: Sequence[float | int]) -> str:
    return ", ".join(f"{number:g}" for number in numbers)


def _check_quantizer(side: str, name: str | None, bits: float | int, family: dict) -> None:
    """Raise a ValueError for a quantizer that is not there, or has not these bits."""
    if name is None:
        return
    if name not in family:
        raise ValueError(str(unknown_name(f"{side} quantizer", name, family)))
    if bits not in family[name].BITS:
        has = _listed(family[name].BITS)
        raise ValueError(f"{side}_quantizer {name} has {has} bits, not {side}_bits {bits:g}")


@dataclass(frozen=True)
class Placement:
    """What became of one module.

    Attributes:
        name: of the module in the model.
        kind: its kind.
        rule: number of its rule, from 0.
        weights: its weight quantizer in words, "-" without.
        activations: those of its inputs in words.
        weight_bits: of a weight; 32 where they are left alone, 0 where there are none.
        activation_bits: of its inputs, the most of them.
    """

    name: str
    kind: str
    rule: int
    weights: str
    activations: str
    weight_bits: float | int
    activation_bits: int


def quantize_modules(
    model: nn.Module,
    rules: Sequence[Rule],
    *,
    where: object,
    others: Sequence[Sequence[Rule]] = (),
    strict: bool = True,
) -> list[Placement]:
    """Replace modules of `model` by quantized ones, in place, and return what became of each.

    Weight quantizers start from the weights that are there; activation quantizers have no scale before
    quantize.calibration or a checkpoint gives them one.

    Args:
        model: any; its modules have the kinds of nn.kinds.
        rules: no two may take the same module.
        where: the file they stand in, for messages.
        others: of further precisions the same rules with other bits; each quantizer is then a
            switch (quantize.switches) whose last member is that of `rules`.
        strict: False does not ask what `check_policy` asks: of the rules of a step, which may have more
            bits than the policy, or of a training that is there.

    Raises:
        InputError: a rule takes nothing, two take the same, or a module cannot be quantized.
    """
    if strict:
        check_policy(model, rules, where=where)
    taken = _taken(model, rules, where=where)
    placements = []
    for name, (number, kind) in taken.items():
        holder_name, _, attribute = name.rpartition(".")
        holder = model.get_submodule(holder_name)
        module = getattr(holder, attribute)
        try:
            place = next(place for cls, place in _PLACES if isinstance(module, cls))
            given = _input_of(model, name)
            quantized = place(module, rules[number], given)
            if quantized is not module:
                join_precisions(quantized, [place(module, r[number], given) for r in others])
        except StopIteration:
            what = f"{type(module).__name__} '{name}' of kind {kind} cannot be quantized"
            raise InputError(what, where=f"{where}: rules[{number}]") from None
        except ValueError as error:
            raise InputError(f"{name}: {error}", where=f"{where}: rules[{number}]") from error
        if quantized is not module:
            device = next((p.device for p in model.parameters()), None)
            setattr(holder, attribute, quantized.to(device))
        placements.append(_placement(name, kind, number, quantized))
    return placements


def check_policy(model: nn.Module, rules: Sequence[Rule], *, where: object) -> None:
    """Raise where a part of a policy says nothing about `model`; kinds that it does not have may be named.

    Raises:
        InputError: a rule takes nothing or quantizes nothing of what it takes, one of its names fits
            nothing, or two rules take the same.
    """
    taken = _taken(model, rules, where=where)
    for number, rule in enumerate(rules):
        names = [name for name, (of, _) in taken.items() if of == number]
        for pattern in rule.modules:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise InputError(
                    f"modules '{pattern}' fits no module of kinds {', '.join(rule.kinds)}",
                    where=f"{where}: rules[{number}]",
                    fix="mend it or leave it out",
                )
        kinds = {taken[name][1] for name in names}
        has_weights = kinds != {WITHOUT_WEIGHTS}
        if rule.activation_bits >= FLOATING and not (has_weights and rule.weight_bits < FLOATING):
            why = "" if has_weights else f", and {WITHOUT_WEIGHTS} has no weights"
            raise InputError(
                f"quantizes nothing of {', '.join(sorted(kinds))}: weight_bits {rule.weight_bits:g}, "
                f"activation_bits {rule.activation_bits}{why}",
                where=f"{where}: rules[{number}]",
                fix=f"give it bits below {FLOATING}, or leave the rule out",
            )


def _taken(model: nn.Module, rules: Sequence[Rule], *, where: object) -> dict[str, tuple[int, str]]:
    """Return {module name: (number of its rule, its kind)} of what the rules take."""
    kinds = module_kinds(model)
    taken: dict[str, tuple[int, str]] = {}
    for number, rule in enumerate(rules):
        found = [
            name
            for name, kind in kinds.items()
            if kind in rule.kinds and any(fnmatchcase(name, part) for part in rule.modules)
        ]
        if not found:
            there = ", ".join(sorted(set(kinds.values()) - set(NOT_QUANTIZED)))
            raise InputError(
                f"takes nothing: the model has no module of kinds {', '.join(rule.kinds)} whose "
                f"name fits {', '.join(rule.modules)}",
                where=f"{where}: rules[{number}]",
                fix=f"the model has {there}",
            )
        for name in found:
            if name in taken:
                raise InputError(
                    f"'{name}' is taken by rules[{taken[name][0]}] and by rules[{number}]",
                    where=where,
                    fix="narrow one of them by kinds or modules",
                )
            taken[name] = number, kinds[name]
    return taken


@dataclass(frozen=True)
class _Input:
    """What is known of the input of a module."""

    signed: bool = True
    is_table: bool = False
    heads: int = 1  # of the attention that the module belongs to


def _input_of(model: nn.Module, name: str) -> _Input:
    """Return what is known of the input of the module of that name."""
    parts = name.split(".")
    for depth in range(len(parts)):
        holder, attribute = model.get_submodule(".".join(parts[:depth])), ".".join(parts[depth:])
        for cls, attributes, holds in _NOT_NEGATIVE:
            if isinstance(holder, cls) and attribute in attributes:
                return _Input(signed=not holds(holder))
        for cls, attributes in _TABLES:
            if isinstance(holder, cls) and attribute in attributes:
                return _Input(is_table=True)
        if isinstance(holder, (MultiHeadAttention, RelativeAttention)):
            return _Input(heads=holder.heads)
    return _Input()


def _weights(rule: Rule, layer: nn.Module) -> WeightQuantizer | None:
    """Return the quantizer of a layer's weights, started from them."""
    if rule.weight_bits >= FLOATING:
        return None
    default = {1: "bit", TERNARY_BITS: "ternary"}.get(rule.weight_bits, "lsq")
    quantizer = WEIGHT_QUANTIZERS[rule.weight_quantizer or default](
        bits=rule.weight_bits, granularity=rule.granularity, channels=layer.weight.size(0)
    ).to(layer.weight.device)
    quantizer.start(layer.weight)
    return quantizer


def _activations(
    rule: Rule,
    *,
    signed: bool = True,
    is_static: bool = False,
    groups: int = 1,
    sparse: bool = False,
    bits: int | None = None,
) -> ActivationQuantizer | None:
    """Return the quantizer of an input.

    Args:
        rule: says bits and, perhaps, which quantizer.
        signed: False for what is never below 0.
        is_static: True where a scale of each token does not factor out of the sum: lsq then takes the
            place of a dynamic quantizer.
        groups: scales.
        sparse: exact zeros are no values.
        bits: other than the rule's.
    """
    bits = bits or rule.activation_bits
    if bits >= FLOATING:
        return None
    name = rule.activation_quantizer if bits == rule.activation_bits else None
    name = name or {1: "bit", 8: "absmax"}.get(bits, "lsq")
    if is_static and ACTIVATION_QUANTIZERS[name].IS_DYNAMIC:
        name = "lsq"
    return ACTIVATION_QUANTIZERS[name](bits=bits, signed=signed, groups=groups, sparse=sparse)


def _place_linear(layer: nn.Linear, rule: Rule, given: _Input) -> nn.Module:
    bits = max(rule.activation_bits, TABLE_BITS) if given.is_table else None
    weights, inputs = _weights(rule, layer), _activations(rule, signed=given.signed, bits=bits)
    if weights is None and inputs is None:
        return layer
    return QuantizedLinear(layer, weights=weights, inputs=inputs)


def _place_convolution(layer: nn.Module, rule: Rule, given: _Input) -> nn.Module:
    """A sum over taps has no scale of one frame: activations are static."""
    weights = _weights(rule, layer)
    inputs = _activations(rule, signed=given.signed, is_static=True)
    if weights is None and inputs is None:
        return layer
    families = {DepthwiseConvolution: QuantizedDepthwise, nn.Conv1d: QuantizedConv1d}
    cls = next((new for old, new in families.items() if isinstance(layer, old)), QuantizedConv2d)
    return cls(layer, weights=weights, inputs=inputs)


def _place_positional(layer: PositionalConvolution, rule: Rule, given: _Input) -> nn.Module:
    """Zeros beyond an utterance have to stay what they are, which ±1 cannot say."""
    if rule.activation_bits == 1:
        raise ValueError("activation_bits 1, expected 2 or more: the padding needs a code of 0")
    weights, inputs = _weights(rule, layer), _activations(rule, is_static=True)
    if weights is None and inputs is None:
        return layer
    return QuantizedPositional(layer, weights=weights, inputs=inputs)


def _place_attention(attention: nn.Module, rule: Rule, given: _Input) -> nn.Module:
    """Values are mixed over frames, so that their scale is static, of each head."""
    if rule.activation_bits >= FLOATING:
        return attention
    operands = {name: _activations(rule) for name in ("query", "key")}
    operands["value"] = _activations(rule, is_static=True, groups=given.heads)
    operands["probabilities"] = _activations(rule, signed=False, sparse=True)
    if isinstance(attention, RelativeDotProduct):
        operands |= {name: _activations(rule) for name in ("position_query", "positions")}
        return QuantizedRelativeDotProduct(attention, **operands)
    return QuantizedDotProduct(attention, **operands)


_PLACES: tuple[tuple[type | tuple[type, ...], Callable], ...] = (
    (nn.Linear, _place_linear),
    ((nn.Conv1d, nn.Conv2d), _place_convolution),
    (PositionalConvolution, _place_positional),
    ((DotProductAttention, LocalAttention, RelativeDotProduct), _place_attention),
)


def _placement(name: str, kind: str, rule: int, module: nn.Module) -> Placement:
    """Return what became of a module."""
    quantizers = {key: child for key, child in module.named_children() if _is_quantizer(child)}
    weights = quantizers.pop("weight_quantizer", None)
    words = [_words(quantizer) for quantizer in quantizers.values()]
    has_weights = "weight" in dict(module.named_parameters(recurse=False))
    return Placement(
        name=name,
        kind=kind,
        rule=rule,
        weights=_words(weights) if weights else ("-" if has_weights else ""),
        activations=" ".join(dict.fromkeys(words)) or "-",
        weight_bits=weights.bits if weights else (32 if has_weights else 0),
        activation_bits=max((q.bits for q in quantizers.values()), default=32),
    )


def _is_quantizer(module: nn.Module) -> bool:
    return isinstance(module, (WeightQuantizer, ActivationQuantizer))


def _words(quantizer: WeightQuantizer | ActivationQuantizer) -> str:
    """Return a quantizer in words: bit 1 by channel, lsq 4 unsigned, absmax 8 by token."""
    if isinstance(quantizer, (WeightSwitch, ActivationSwitch)):
        return " | ".join(map(_words, quantizer.members))
    is_weight = isinstance(quantizer, WeightQuantizer)
    families = WEIGHT_QUANTIZERS if is_weight else ACTIVATION_QUANTIZERS
    name = next(key for key, cls in families.items() if type(quantizer) is cls)
    words = [f"{name} {quantizer.bits:g}"]
    if isinstance(quantizer, WeightQuantizer):
        words.append(f"by {quantizer.granularity}")
    elif quantizer.IS_DYNAMIC:
        words.append("by token")
    else:
        words += ["unsigned"] * (not quantizer.signed) + ["by head"] * (quantizer.groups > 1)
    return " ".join(words)


def policy_table(model: nn.Module, placements: Sequence[Placement]) -> str:
    """Return a table of the rules and what each took, and of what is left in floating point."""
    taken = {placement.name for placement in placements}
    kept = Counter(kind for name, kind in module_kinds(model).items() if name not in taken)
    counts = Counter((p.rule, p.kind, p.weights, p.activations) for p in placements)
    rows = [("rule", "kind", "modules", "weights", "activations")]
    rows += [
        (str(rule), kind, str(count), weights, activations)
        for (rule, kind, weights, activations), count in counts.items()
    ]
    rows += [("-", kind, str(count), "-", "-") for kind, count in kept.items()]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
