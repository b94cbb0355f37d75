"""Modules that multiply integers, in the place of those of a packed model that its header names.

`quantized` of the header is {module name: how it multiplies}. A module with weights:

    {"weight_bits": 1, "activation_bits": 8, "input": <ActivationFormat> or null}

with the tensors NAME.weight (int1 … int8; bf16 or fp32 where weight_bits is 16 or 32),
NAME.weight_scale (fp32, one for each output channel; of integers only; 0 where all weights of a channel
are, as one bit has no code for that), NAME.bias as before, and
NAME.input.scale and NAME.input.offset as the input's quantizer has them. The two products of attention:

    {"activation_bits": 8, "operands": {"query": <ActivationFormat>, "key": …, "value": …,
     "probabilities": …, and of relative attention "position_query": …, "positions": …}}

with NAME.OPERAND.scale and NAME.OPERAND.offset. Everything is torch, on any device: the reference
of what kernels compute (runtime.products). Without a quantizer of the input, x is multiplied in fp32 by
what the weights stand for.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from espnet_lite.config import from_plain
from espnet_lite.errors import InputError
from espnet_lite.nn.attention import DotProductAttention
from espnet_lite.nn.convolution import DepthwiseConvolution, convolve_depthwise
from espnet_lite.nn.local_attention import LocalAttention
from espnet_lite.nn.masks import window_mask
from espnet_lite.nn.positional_convolution import PositionalConvolution, positions_of
from espnet_lite.nn.relative_attention import RelativeDotProduct, shifted
from espnet_lite.runtime import products
from espnet_lite.runtime.activations import ActivationFormat, PackedActivation
from espnet_lite.runtime.bits import PackedIntegers
from espnet_lite.runtime.products import Codes

INTEGER_WEIGHT_BITS = 8  # weights of more bits are in floating point


@dataclass(frozen=True)
class WeightedFormat:
    """How a layer with weights multiplies."""

    weight_bits: int | float  # 1.58: ternary
    activation_bits: int
    input: ActivationFormat | None = None  # null: in fp32

    def __post_init__(self):
        _check_bits("weight_bits", self.weight_bits)
        _check_bits("activation_bits", self.activation_bits)
        if self.input is not None and self.input.scales != 1:
            raise ValueError(f"input.scales {self.input.scales}, expected 1")

    @property
    def stored_bits(self) -> int:
        """Return the bits of a stored weight: 1, 2, 4, 8, 16 (bf16) or 32 (fp32)."""
        return next(bits for bits in (1, 2, 4, 8, 16, 32) if bits >= self.weight_bits)


@dataclass(frozen=True)
class Operands:
    """What attention multiplies; the last two are those of relative attention."""

    query: ActivationFormat
    key: ActivationFormat
    value: ActivationFormat
    probabilities: ActivationFormat
    position_query: ActivationFormat | None = None
    positions: ActivationFormat | None = None

    def __post_init__(self):
        if self.value.quantizer == "absmax":  # a scale of each frame does not leave the sum
            raise ValueError("value.quantizer 'absmax', expected a static one")


@dataclass(frozen=True)
class AttentionFormat:
    """How the products of attention multiply."""

    activation_bits: int
    operands: Operands

    def __post_init__(self):
        _check_bits("activation_bits", self.activation_bits)


def _check_bits(name: str, bits: float | int) -> None:
    if not 1 <= bits <= 32:
        raise ValueError(f"{name} {bits} are not between 1 and 32")


class _Weighted(nn.Module):
    """What layers with weights share; each one says what its products are."""

    def __init__(self, layer: nn.Module, form: WeightedFormat):
        super().__init__()
        self.form = form
        shape, channels = layer.weight.shape, len(layer.weight)
        is_integer = form.weight_bits <= INTEGER_WEIGHT_BITS
        weight_type = torch.int8 if is_integer else torch.float32
        self.register_buffer("weight", torch.zeros(shape, dtype=weight_type))
        self.register_buffer("weight_scale", torch.ones(channels) if is_integer else None)
        self.register_buffer("bias", None if layer.bias is None else torch.zeros(channels))
        self.input = None if form.input is None else PackedActivation(form.input)

    def _weight_codes(self) -> Codes:
        return Codes(self.weight.float(), self.weight_scale, 2 ** (self.form.stored_bits - 1))

    @property
    def has_codes(self) -> bool:
        """Return whether both factors are integers."""
        return self.input is not None and self.weight_scale is not None

    def _in_floats(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return what input and weights stand for, in fp32, where not both are integers."""
        if self.input is not None:
            codes = self.input(x)
            x = codes.values * codes.scale
        if self.weight_scale is None:
            return x, self.weight
        return x, self.weight * self.weight_scale.view(-1, *(1,) * (self.weight.ndim - 1))


class IntegerLinear(_Weighted):
    """In the place of nn.Linear."""

    def forward(self, x: Float[Tensor, "*batch dim_in"]) -> Float[Tensor, "*batch dim_out"]:
        """Return what the layer makes of `x`."""
        if self.has_codes:
            return products.linear(self.input(x), self._weight_codes(), self.bias)
        return functional.linear(*self._in_floats(x), self.bias)


class IntegerDepthwise(_Weighted):
    """In the place of DepthwiseConvolution."""

    def __init__(self, layer: DepthwiseConvolution, form: WeightedFormat):
        super().__init__(layer, form)
        _need_static_input(form)
        (self.stride,) = layer.stride

    def forward(
        self,
        x: Float[Tensor, "batch time channels"],
        valid: Bool[Tensor, "batch time"] | None = None,
    ) -> Float[Tensor, "batch time_out channels"]:
        """Return ceil(time / stride) frames; what is not valid, or beyond the batch, adds exactly 0."""
        if self.has_codes:
            weight = self._weight_codes()
            return products.depthwise(
                self.input(x), weight, self.bias, stride=self.stride, valid=valid
            )
        x, weight = self._in_floats(x)
        if valid is not None:
            x = x.masked_fill(~valid[..., None], 0.0)
        return convolve_depthwise(x, weight, self.bias, stride=self.stride)


class IntegerConv2d(_Weighted):
    """In the place of nn.Conv2d without padding."""

    def __init__(self, layer: nn.Conv2d, form: WeightedFormat):
        super().__init__(layer, form)
        _need_static_input(form)
        _need_plain(layer)
        self.options = {"stride": layer.stride, "groups": layer.groups}

    def forward(
        self, x: Float[Tensor, "batch channels_in height width"]
    ) -> Float[Tensor, "batch channels height_out width_out"]:
        """Return what the layer makes of `x`."""
        if self.has_codes:
            return products.conv2d(self.input(x), self._weight_codes(), self.bias, **self.options)
        return functional.conv2d(*self._in_floats(x), self.bias, **self.options)


class IntegerConv1d(_Weighted):
    """In the place of nn.Conv1d without padding, on (batch, channels, time)."""

    def __init__(self, layer: nn.Conv1d, form: WeightedFormat):
        super().__init__(layer, form)
        _need_static_input(form)
        _need_plain(layer)
        self.options = {"stride": layer.stride[0], "groups": layer.groups}

    def forward(
        self, x: Float[Tensor, "batch channels_in time_in"]
    ) -> Float[Tensor, "batch channels time_out"]:
        """Return what the layer makes of `x`."""
        if self.has_codes:
            return products.conv1d(self.input(x), self._weight_codes(), self.bias, **self.options)
        return functional.conv1d(*self._in_floats(x), self.bias, **self.options)


class IntegerPositional(_Weighted):
    """In the place of PositionalConvolution, its weight normalization worked out."""

    def __init__(self, layer: PositionalConvolution, form: WeightedFormat):
        super().__init__(layer, form)
        _need_static_input(form)
        if form.input is not None and form.input.bits == 1:
            raise ValueError("input.bits 1 before a convolution whose padding needs a code of 0")
        self.options = {"groups": layer.groups, "padding": self.weight.size(2) // 2}

    def forward(self, x: Float[Tensor, "batch time dim"]) -> Float[Tensor, "batch time dim"]:
        """Return what is to be added to `x`."""
        if self.has_codes:
            weight = self._weight_codes()
            y = products.conv1d(self.input(x.mT), weight, self.bias, stride=1, **self.options)
        else:
            y = functional.conv1d(*self._in_floats(x.mT), self.bias, **self.options)
        return positions_of(y, frames=x.size(1))


class _Attention(nn.Module):
    """What both attentions share: a quantizer for each operand."""

    def __init__(self, form: AttentionFormat):
        super().__init__()
        self.form = form
        for field in fields(form.operands):
            operand = getattr(form.operands, field.name)
            if operand is not None:
                self.add_module(field.name, PackedActivation(operand))

    def _mixed(self, scores: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """Return the values mixed by the softmax of the scores."""
        probabilities = products.softmax(scores * value.size(-1) ** -0.5, mask)
        return products.mixed(self.probabilities(probabilities), self.value(value))


class IntegerDotProduct(_Attention):
    """In the place of DotProductAttention and of LocalAttention, whose window is a mask here."""

    def __init__(self, layer: DotProductAttention | LocalAttention, form: AttentionFormat):
        if form.operands.positions is not None or form.operands.position_query is not None:
            raise ValueError("operands 'position_query' and 'positions', expected none")
        super().__init__(form)
        is_local = isinstance(layer, LocalAttention)
        self.window = layer.window if is_local else None
        self.global_tokens = layer.global_tokens if is_local else 0

    def forward(
        self,
        query: Float[Tensor, "batch heads queries head_dim"],
        key: Float[Tensor, "batch heads keys head_dim"],
        value: Float[Tensor, "batch heads keys head_dim"],
        mask: Bool[Tensor, "#batch #heads #queries keys"] | None = None,
    ) -> Float[Tensor, "batch heads queries head_dim"]:
        """Return the mixed values; a query that may see no key gets some mix of all values."""
        if self.window is not None:
            near = window_mask(
                key.size(2), self.window, global_tokens=self.global_tokens, device=key.device
            )
            mask = near if mask is None else near & mask
        return self._mixed(products.scores(self.query(query), self.key(key)), value, mask)


class IntegerRelativeDotProduct(_Attention):
    """In the place of RelativeDotProduct."""

    def __init__(self, layer: RelativeDotProduct, form: AttentionFormat):
        if form.operands.positions is None or form.operands.position_query is None:
            raise ValueError("operands lack 'position_query' or 'positions'")
        super().__init__(form)

    def forward(
        self,
        content_query: Float[Tensor, "batch heads time head_dim"],
        position_query: Float[Tensor, "batch heads time head_dim"],
        key: Float[Tensor, "batch heads time head_dim"],
        value: Float[Tensor, "batch heads time head_dim"],
        positions: Float[Tensor, "heads distances head_dim"],
        mask: Bool[Tensor, "#batch #heads #time time"] | None = None,
    ) -> Float[Tensor, "batch heads time head_dim"]:
        """Return the mixed values; arguments are RelativeDotProduct's."""
        content = products.scores(self.query(content_query), self.key(key))
        position = products.scores(self.position_query(position_query), self.positions(positions))
        return self._mixed(content + shifted(position), value, mask)


def _need_static_input(form: WeightedFormat) -> None:
    """Raise a ValueError where the input of a convolution has a scale for each frame."""
    if form.input is not None and form.input.quantizer == "absmax":
        raise ValueError("input.quantizer 'absmax' before a convolution, expected a static one")


def _need_plain(layer: nn.Conv1d | nn.Conv2d) -> None:
    """Raise a ValueError for a convolution with padding or dilation."""
    if {*layer.padding} != {0} or {*layer.dilation} != {1}:
        raise ValueError(f"{layer} cannot multiply integers, only one without padding and dilation")


# Class of the architecture → its module of integers; the first that fits.
INTEGER_MODULES: dict[type[nn.Module], type[nn.Module]] = {
    nn.Linear: IntegerLinear,
    DepthwiseConvolution: IntegerDepthwise,
    nn.Conv2d: IntegerConv2d,
    nn.Conv1d: IntegerConv1d,
    PositionalConvolution: IntegerPositional,
    DotProductAttention: IntegerDotProduct,
    LocalAttention: IntegerDotProduct,
    RelativeDotProduct: IntegerRelativeDotProduct,
}


def put_integer_modules(
    model: nn.Module, quantized: Mapping[str, object], *, where: object = None
) -> None:
    """Replace the modules of `model` that a header's `quantized` names, in place; their numbers are
    those of nothing until weights are loaded.

    Raises:
        InputError: a name that is not in the model, of a module that cannot multiply integers, or a
            format that is not whole or does not fit the module.
    """
    for name, plain in quantized.items():
        key = f"{where}: quantized module '{name}'" if where is not None else f"'{name}'"
        parent_name, _, attribute = name.rpartition(".")
        try:
            parent, layer = model.get_submodule(parent_name), model.get_submodule(name)
        except AttributeError:
            raise InputError("is not in the architecture", where=key) from None
        build = next((new for old, new in INTEGER_MODULES.items() if isinstance(layer, old)), None)
        if build is None or not name:
            raise InputError(f"{type(layer).__name__} cannot multiply integers", where=key)
        schema = AttentionFormat if issubclass(build, _Attention) else WeightedFormat
        if not isinstance(plain, dict):
            raise InputError(f"is {str(plain)[:40]}, expected a mapping", where=key)
        form = from_plain(schema, plain, where=key)
        try:
            module = build(layer, form)
        except ValueError as error:
            raise InputError(str(error), where=key) from error
        parent.add_module(attribute, module.train(layer.training))


def check_integer_tensors(
    model: nn.Module, tensors: Mapping[str, Tensor | PackedIntegers], *, where: object = None
) -> None:
    """Make sure that tensors are of the types and ranges that the modules of integers take.

    Args:
        model: after `put_integer_modules`.
        tensors: all that it has, of the right shapes.

    Raises:
        InputError: integers of other bits than the header says, integers where there should be none,
            a scale that is not finite and above 0 (or 0, of one-bit weights), or an offset that is
            not finite.
    """
    expected = {}
    for name, module in model.named_modules():
        prefix = f"{name}." if name else ""
        if isinstance(module, _Weighted) and module.weight.dtype == torch.int8:
            expected[f"{prefix}weight"] = f"int{module.form.stored_bits}"
            is_one_bit = module.form.stored_bits == 1
            _check_scale(f"{prefix}weight_scale", tensors, may_be_zero=is_one_bit, where=where)
        elif isinstance(module, PackedActivation) and module.form.quantizer != "absmax":
            _check_scale(f"{prefix}scale", tensors, where=where)
            offset = tensors.get(f"{prefix}offset")
            if offset is not None and not offset.isfinite().all():
                raise InputError(f"tensor '{prefix}offset' is not finite", where=where)
    for name, tensor in tensors.items():
        found = tensor.encoding if isinstance(tensor, PackedIntegers) else "floating point"
        if found != expected.get(name, "floating point"):
            wanted = expected.get(name, "floating point")
            raise InputError(f"tensor '{name}' is {found}, expected {wanted}", where=where)


def _check_scale(
    name: str,
    tensors: Mapping[str, Tensor | PackedIntegers],
    *,
    may_be_zero: bool = False,
    where: object,
) -> None:
    scale = tensors[name]
    if not (
        isinstance(scale, Tensor)
        and scale.isfinite().all()
        and (scale >= 0 if may_be_zero else scale > 0).all()
    ):
        expected = "at least 0" if may_be_zero else "above 0"
        raise InputError(f"tensor '{name}' is not finite and {expected}", where=where)
