"""Linear with weights of 1 to 8 bits and inputs of 1 to 8 bits: integers multiplied, fused in C++.

    y = activation(acc · weight_scale · input_scale + bias)

with acc the integer product of the input's codes (activation_codes.py) and the weights. Optionally a
LayerNorm of each row before it is quantized, and `residual + factor · y` after it. Integers are those
of `reference`, whatever the processor has; floats differ by rounding.

Weights stay packed in memory. Of the two ways to multiply, `bytes` unpacks a few columns at a time into
the cache and takes VNNI, AMX or VPMADDUBSW; `bits` (weights of one bit, inputs of one or two) counts the
ones of XNOR or AND. `engine` says which; None is the faster one of this processor.
"""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from espnet_lite.errors import unknown_name
from espnet_lite.kernels.activation_codes import ActivationCodes, QuantizerStruct
from espnet_lite.kernels.library import chosen_level, kernel

PANEL = 16  # outputs side by side
DEPTH = 64  # inputs are padded to a multiple of it
WORD = 32  # the same of bits
GROUP = 4  # inputs whose weights stand together
# Bits of a weight → (its smallest value, bits it takes in a panel). 1.58: −1, 0, 1.
WEIGHTS = {1: (-1, 1), 1.58: (-1, 2), 2: (-2, 2), 4: (-8, 4), 8: (-128, 8)}
# What may follow; places are numbers in sources/codes.h. glu: the first half of the outputs times the
# sigmoid of the second.
ACTIVATIONS = ("linear", "relu", "swish", "gelu", "glu")
ENGINES = ("bytes", "bits")
MOST_INPUTS = 2**16  # sums of products of 8 bits fit into 32


def panels_of_bytes(codes: Tensor, bits: int) -> Tensor:
    """Return unsigned `codes` (outputs, inputs), uint8 of `bits` bits, as sources/byte_products.h wants
    them; outputs and inputs are multiples of PANEL and DEPTH."""
    outputs, inputs = codes.shape
    groups = codes.view(outputs // PANEL, PANEL, inputs // GROUP, GROUP).transpose(1, 2)
    lanes = groups.reshape(-1, 8 // bits, bits, 8)
    packed = lanes[:, 0].clone()
    for place in range(1, 8 // bits):
        packed |= lanes[:, place] << (bits * place)
    return packed.flatten()


def panels_of_bits(codes: Tensor) -> Tensor:
    """Return `codes` (outputs, inputs), uint8 of 0 and 1, as sources/bit_products.h wants them (uint8,
    four to a word); outputs and inputs are multiples of PANEL and WORD."""
    outputs, inputs = codes.shape
    places = torch.arange(8, dtype=torch.uint8)
    packed = (codes.view(outputs, inputs // 8, 8) << places).sum(dim=-1, dtype=torch.uint8)
    words = packed.view(outputs // PANEL, PANEL, inputs // WORD, WORD // 8)
    return words.transpose(1, 2).flatten()


@dataclass(frozen=True)
class Norm:
    """LayerNorm of the input's rows, or without `epsilon` only bias + x · weight."""

    weight: Tensor  # (inputs,) fp32
    bias: Tensor
    epsilon: float | None = 1.0e-5

    def __call__(self, x: Tensor) -> Tensor:
        """Return the rows as the product takes them."""
        if self.epsilon is None:
            return torch.addcmul(self.bias, x, self.weight)
        return functional.layer_norm(x, self.weight.shape, self.weight, self.bias, self.epsilon)


class _Weights(ctypes.Structure):
    """`Weights` of sources/linear_rows.h."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("panels", "scale", "bias", "column_terms")),
        *((name, ctypes.c_int64) for name in ("inputs", "panel_count", "results")),
        *((name, ctypes.c_int32) for name in ("bits", "offset", "is_bits", "activation")),
        ("quantizer", QuantizerStruct),
    )


class NormStruct(ctypes.Structure):
    """`Norm` there."""

    _fields_ = (
        ("weight", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("epsilon", ctypes.c_float),
    )

    @classmethod
    def of(cls, norm: Norm | None) -> "NormStruct":
        """Return a norm, or none, as the kernels take it; `norm` has to stay."""
        if norm is None:
            return cls(None, None, 0.0)
        epsilon = -1.0 if norm.epsilon is None else norm.epsilon
        return cls(norm.weight.data_ptr(), norm.bias.data_ptr(), epsilon)


class _Rows(ctypes.Structure):
    """`Rows` there."""

    _fields_ = (
        *(("x", ctypes.c_void_p), ("x_stride", ctypes.c_int64), ("count", ctypes.c_int64)),
        *(("out", ctypes.c_void_p), ("out_stride", ctypes.c_int64)),
        *(("residual", ctypes.c_void_p), ("residual_stride", ctypes.c_int64)),
        ("factor", ctypes.c_float),
    )


ARGUMENTS = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int)


def _fastest_engine(weight_bits: int | float, codes: ActivationCodes) -> str:
    """Return how to multiply on this processor. Tiles of AMX multiply bytes faster than others count
    bits; bit by bit, two planes pay only where there is an instruction that counts."""
    if weight_bits != 1 or codes.planes == 0:
        return "bytes"
    level = chosen_level()
    return "bits" if level == "vnni" or (codes.planes == 1 and level != "amx") else "bytes"


class LowBitLinear:
    """A Linear that multiplies integers. Called with fp32 (…, inputs), returns fp32 (…, outputs)."""

    def __init__(
        self,
        weight: Tensor,
        *,
        weight_bits: int | float,
        weight_scale: Tensor,
        bias: Tensor | None,
        codes: ActivationCodes,
        activation: str = "linear",
        norm: Norm | None = None,
        engine: str | None = None,
    ):
        """Arrange the weights.

        Args:
            weight: (outputs, inputs) integers of `weight_bits` bits.
            weight_bits: 1, 1.58, 2, 4 or 8.
            weight_scale: worth of a weight's 1: fp32, one number or one for each output.
            bias: (outputs,) fp32.
            codes: what the inputs become.
            activation: of ACTIVATIONS; glu halves the outputs.
            norm: LayerNorm before the inputs become codes.
            engine: of ENGINES; None: the faster one here.
        """
        if weight_bits not in WEIGHTS:
            raise ValueError(f"weights of {weight_bits} bits, expected one of {list(WEIGHTS)}")
        if activation not in ACTIVATIONS:
            raise unknown_name("activation", activation, ACTIVATIONS)
        if engine is not None and engine not in ENGINES:
            raise unknown_name("engine", engine, ENGINES)
        self.outputs, self.inputs = weight.shape
        if self.inputs > MOST_INPUTS:
            raise ValueError(f"{self.inputs} inputs, expected at most {MOST_INPUTS}")
        low, self.bits = WEIGHTS[weight_bits]
        high = 1 if weight_bits < 2 else -low - 1
        if (
            weight.amin() < low
            or weight.amax() > high
            or (weight_bits == 1 and (weight == 0).any())
        ):
            raise ValueError(f"a weight is none of {weight_bits} bits")
        self.engine = engine or _fastest_engine(weight_bits, codes)
        if self.engine == "bits" and (weight_bits != 1 or codes.planes == 0):
            raise ValueError(f"weights of {weight_bits} bits and {codes} have no product of bits")
        self.weight_bits, self.codes, self.activation, self.norm = (
            *(weight_bits, codes, activation, norm),
        )
        self.results = self.outputs // 2 if activation == "glu" else self.outputs
        scale = weight_scale.float().expand(self.outputs)
        bias = torch.zeros(self.outputs) if bias is None else bias.float()
        unsigned = ((weight + 1) // 2 if weight_bits == 1 else weight - low).to(torch.uint8)
        column_terms = codes.zero * weight.sum(dim=1, dtype=torch.int32)
        arranged = [unsigned, scale, bias, column_terms]
        if activation == "glu":
            arranged = [_gates_beside_values(each) for each in arranged]
        unsigned, scale, bias, column_terms = arranged
        missing = -unsigned.size(0) % PANEL
        unit = WORD if self.engine == "bits" else DEPTH
        unsigned = functional.pad(unsigned, (0, -self.inputs % unit, 0, missing))
        self._panels = (
            panels_of_bits(unsigned)
            if self.engine == "bits"
            else panels_of_bytes(unsigned, self.bits)
        )
        self._scale, self._bias, self._column_terms = (
            functional.pad(each, (0, missing)).contiguous() for each in (scale, bias, column_terms)
        )
        self._struct = _Weights(
            self._panels.data_ptr(),
            self._scale.data_ptr(),
            self._bias.data_ptr(),
            self._column_terms.data_ptr() if codes.zero else None,
            self.inputs,
            unsigned.size(0) // PANEL,
            self.results,
            self.bits,
            1 if weight_bits == 1 else -low,
            int(self.engine == "bits"),
            ACTIVATIONS.index(activation),
            codes.struct(),
        )
        self._norm_struct = NormStruct.of(norm)
        self._addresses = ctypes.addressof(self._struct), ctypes.addressof(self._norm_struct)

    @property
    def weights_address(self) -> int:
        """Return where `Weights` of sources/linear_rows.h is, for kernels that have a Linear in them."""
        return self._addresses[0]

    @property
    def norm_address(self) -> int:
        """Return where `Norm` there is."""
        return self._addresses[1]

    @property
    def scale(self) -> Tensor:
        """Return the worth of a weight's 1, of each output."""
        return self._in_order(self._scale)

    @property
    def bias(self) -> Tensor:
        """Return what is added to each output."""
        return self._in_order(self._bias)

    def _in_order(self, x: Tensor) -> Tensor:
        """Return one number of each output, of what is kept of each column."""
        ordered = _gates_behind_values(x, self.outputs) if self.activation == "glu" else x
        return ordered[: self.outputs]

    @property
    def bytes(self) -> int:
        """Return the bytes of memory that the weights take."""
        return self._panels.numel()

    def __call__(self, x: Tensor, residual: Tensor | None = None, *, factor: float = 1.0) -> Tensor:
        """Return the Linear's output; with `residual`, residual + factor · output."""
        function = kernel("lowbit_linear", ARGUMENTS)
        if function is None:
            return self.reference(x, residual, factor=factor)
        return self.fused(function, x, residual, factor=factor)

    def fused(
        self,
        function: Callable[..., int],
        x: Tensor,
        residual: Tensor | None = None,
        *,
        factor: float = 1.0,
    ) -> Tensor:
        """Return the same, computed by the C++ `function` of any level."""
        if x.size(-1) != self.inputs:
            raise ValueError(f"{x.size(-1)} inputs, expected {self.inputs}")
        rows = _rows(x)
        out = rows.new_empty(rows.size(0), self.results)
        if not out.numel():
            return out.view(*x.shape[:-1], self.results)
        residual_rows = (
            None if residual is None else _rows(residual.expand(*x.shape[:-1], self.results))
        )
        call = _Rows(
            rows.data_ptr(),
            rows.stride(0),
            rows.size(0),
            out.data_ptr(),
            out.stride(0),
            None if residual_rows is None else residual_rows.data_ptr(),
            0 if residual_rows is None else residual_rows.stride(0),
            factor,
        )
        if function(*self._addresses, ctypes.addressof(call), torch.get_num_threads()):
            raise MemoryError("no memory for the codes of a low-bit product")
        return out.view(*x.shape[:-1], self.results)

    def integers(self) -> Tensor:
        """Return the weights (outputs, inputs) as int8, from their panels."""
        panels = self._struct.panel_count
        if self.engine == "bits":
            words = self._panels.view(panels, -1, PANEL, WORD // 8).transpose(1, 2)
            places = torch.arange(8, dtype=torch.uint8)
            unsigned = (words[..., None] >> places) & 1
        else:
            lanes = self._panels.view(-1, 1, self.bits, 8)
            shifts = torch.arange(0, 8, self.bits, dtype=torch.uint8)[:, None, None]
            groups = (lanes >> shifts) & (2**self.bits - 1)
            unsigned = groups.view(panels, -1, PANEL, GROUP).transpose(1, 2)
        unsigned = unsigned.reshape(panels * PANEL, -1)[:, : self.inputs].to(torch.int16)
        low = WEIGHTS[self.weight_bits][0]
        values = (2 * unsigned - 1 if self.weight_bits == 1 else unsigned + low).to(torch.int8)
        if self.activation == "glu":
            values = _gates_behind_values(values, self.outputs)
        return values[: self.outputs]

    def reference(
        self, x: Tensor, residual: Tensor | None = None, *, factor: float = 1.0
    ) -> Tensor:
        """Return the same in torch."""
        codes, input_scale = self.codes(x if self.norm is None else self.norm(x))
        sums = functional.linear(codes.double(), self.integers().double()).float()
        y = sums * self.scale * input_scale + self.bias
        y = ACTIVATED[self.activation](y)
        return y if residual is None else residual + factor * y


ACTIVATED = {
    "linear": lambda y: y,
    "relu": functional.relu,
    "swish": functional.silu,
    "gelu": functional.gelu,
    "glu": functional.glu,
}


def _rows(x: Tensor) -> Tensor:
    """Return (…, width) as (rows, width), whose rows are contiguous."""
    if x.dtype != torch.float32:
        raise ValueError(f"input of {x.dtype}, expected float32")
    rows = x.reshape(-1, x.size(-1))
    return rows if rows.stride(1) == 1 else rows.contiguous()


def _gates_beside_values(x: Tensor) -> Tensor:
    """Return (2 · n, …), values and their gates, with panels of both taking turns, each padded."""
    missing = -(x.size(0) // 2) % PANEL
    halves = x.unflatten(0, (2, -1))
    halves = functional.pad(halves, (*(0, 0) * (x.ndim - 1), 0, missing))
    return halves.unflatten(1, (-1, PANEL)).transpose(0, 1).flatten(0, 2)


def _gates_behind_values(x: Tensor, outputs: int) -> Tensor:
    """Return what `_gates_beside_values` was given, of `outputs` outputs."""
    halves = x.unflatten(0, (-1, 2, PANEL)).transpose(0, 1).flatten(1, 2)
    return halves[:, : outputs // 2].flatten(0, 1)
