"""A whole block of an encoder whose products multiply integers: step by step in torch, and fused in C++.

A block is a list of steps over buffers of as many rows as there are frames. Steps of rows alone (Linear,
LayerNorm) follow one another in the cache of a thread; only those that mix frames (attention, depthwise
convolution) make threads wait. One call of C++ takes the place of a dozen, each of which would cost
tens of microseconds before it begins.
"""

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from espnet_lite.kernels.library import kernel
from espnet_lite.kernels.lowbit_attention import LowBitAttention, RelativePositions
from espnet_lite.kernels.lowbit_depthwise import LowBitDepthwise
from espnet_lite.kernels.lowbit_linear import LowBitLinear, Norm, NormStruct

# Where steps read and write; places are numbers in sources/lowbit_block.cpp. `own` does not outlast the
# steps of rows around it.
BUFFERS = ("input", "output", "wide", "mixed", "own")


@dataclass(frozen=True)
class Product:
    """target = [residual + factor ·] linear(source); written from `column` of the target on."""

    linear: LowBitLinear
    source: str
    target: str
    residual: str | None = None
    factor: float = 1.0
    column: int = 0


@dataclass(frozen=True)
class Normalize:
    """output = LayerNorm(output)."""

    norm: Norm


@dataclass(frozen=True)
class Attend:
    """mixed = attention of the queries, keys and values that lie side by side in wide.

    Attributes:
        attention: its products.
        head_dim: width of a head.
        content_bias, position_bias: of relative attention, (heads, head_dim).
    """

    attention: LowBitAttention
    head_dim: int
    content_bias: Tensor | None = None
    position_bias: Tensor | None = None


@dataclass(frozen=True)
class Convolve:
    """mixed = depthwise convolution of wide."""

    depthwise: LowBitDepthwise


Step = Product | Normalize | Attend | Convolve
_KINDS = (Product, Normalize, Attend, Convolve)  # places are numbers in sources/lowbit_block.cpp


class _Step(ctypes.Structure):
    """`Step` of sources/lowbit_block.cpp."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("kind", "source", "target", "residual")),
        *(("column", ctypes.c_int64), ("factor", ctypes.c_float), ("reserved", ctypes.c_int32)),
        *(("module", ctypes.c_void_p), ("norm", ctypes.c_void_p)),
    )


class _Block(ctypes.Structure):
    """`Block` there."""

    _fields_ = (
        *(("steps", ctypes.c_void_p), ("count", ctypes.c_int64)),
        ("widths", ctypes.c_int64 * len(BUFFERS)),
    )


class _Call(ctypes.Structure):
    """`Call` there."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("x", "out")),
        *((name, ctypes.c_int64) for name in ("batch", "frames")),
        *((name, ctypes.c_void_p) for name in ("valid", "rotation", "positions")),
    )


ARGUMENTS = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int)


class LowBitBlock:
    """Called with fp32 (batch, time, dim), returns the same shape."""

    def __init__(self, steps: Sequence[Step], *, dim: int):
        """Arrange the steps; the first that has a residual takes it from "input", which stays as it is."""
        self.steps, self.dim = tuple(steps), dim
        self._widths = _widths(self.steps, dim)
        structs = [self._struct_of(step) for step in self.steps]
        self._kept = [kept for _, kept in structs]  # what they point to
        self._structs = (_Step * len(structs))(*(struct for struct, _ in structs))
        self._struct = _Block(
            ctypes.addressof(self._structs),
            len(structs),
            (ctypes.c_int64 * len(BUFFERS))(*(self._widths[name] for name in BUFFERS)),
        )

    def _struct_of(self, step: Step) -> tuple[_Step, object]:
        """Return a step as the kernel takes it, and what it points to."""
        kind = _KINDS.index(type(step))
        places = {name: place for place, name in enumerate(BUFFERS)} | {None: -1}
        if isinstance(step, Product):
            buffers = (places[step.source], places[step.target], places[step.residual])
            addresses = step.linear.weights_address, step.linear.norm_address
            return _Step(kind, *buffers, step.column, step.factor, 0, *addresses), step
        if isinstance(step, Normalize):
            norm, output = NormStruct.of(step.norm), places["output"]
            return _Step(kind, output, output, -1, 0, 1.0, 0, None, ctypes.addressof(norm)), norm
        between = (kind, places["wide"], places["mixed"], -1, 0, 1.0, 0)
        if isinstance(step, Convolve):
            return _Step(*between, step.depthwise.address, None), step
        attention = step.attention.struct(
            step.head_dim, content_bias=step.content_bias, position_bias=step.position_bias
        )
        return _Step(*between, ctypes.addressof(attention), None), attention

    def __call__(
        self,
        x: Tensor,
        valid: Tensor | None = None,
        *,
        rotation: Tensor | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Return the block's output.

        Args:
            x: (batch, time, dim), fp32.
            valid: (batch, time), True for frames that are not padding; None: all.
            rotation: (2, time, head_dim / 2), cosine and sine by which queries and keys are turned.
            positions: (2 · time − 1, dim), projected, of the distances from time − 1 down: of relative
                attention.
        """
        function = kernel("lowbit_block", ARGUMENTS)
        if function is None:
            return self.reference(x, valid, rotation=rotation, positions=positions)
        return self.fused(function, x, valid, rotation=rotation, positions=positions)

    def fused(
        self,
        function: Callable[..., int],
        x: Tensor,
        valid: Tensor | None = None,
        *,
        rotation: Tensor | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Return the same, computed by the C++ `function` of any level."""
        self._check(x, valid, rotation, positions)
        x = x.contiguous()
        # Held to the end of the call, which reads them by address.
        valid, rotation, positions = (
            None if each is None else each.contiguous() for each in (valid, rotation, positions)
        )
        out = torch.empty_like(x)
        if not out.numel():
            return out
        call = _Call(
            *(x.data_ptr(), out.data_ptr(), x.size(0), x.size(1)),
            *(None if each is None else each.data_ptr() for each in (valid, rotation, positions)),
        )
        addresses = ctypes.addressof(self._struct), ctypes.addressof(call)
        if function(*addresses, torch.get_num_threads()):
            raise MemoryError("no memory for a block of low-bit products")
        return out

    def _check(
        self,
        x: Tensor,
        valid: Tensor | None,
        rotation: Tensor | None,
        positions: Tensor | None,
    ) -> None:
        """Raise a ValueError for a tensor of another shape or type than the kernel will read."""
        batch, frames, _ = x.shape
        attention = next((step for step in self.steps if isinstance(step, Attend)), None)
        is_relative = attention is not None and bool(attention.attention.positions)
        if is_relative != (positions is not None):
            raise ValueError(f"positions {'missing' if is_relative else 'given'}")
        half = 0 if attention is None else attention.head_dim // 2
        for name, tensor, shape, dtype in (
            ("x", x, (batch, frames, self.dim), torch.float32),
            ("valid", valid, (batch, frames), torch.bool),
            ("rotation", rotation, (2, frames, half), torch.float32),
            ("positions", positions, (2 * frames - 1, self.dim), torch.float32),
        ):
            if tensor is not None and (tensor.shape != shape or tensor.dtype != dtype):
                raise ValueError(
                    f"{name} {[*tensor.shape]} of {tensor.dtype}, expected {[*shape]} of {dtype}"
                )

    def reference(
        self,
        x: Tensor,
        valid: Tensor | None = None,
        *,
        rotation: Tensor | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Return the same in torch."""
        shape = x.shape[:2]
        buffers = {name: x.new_zeros(*shape, width) for name, width in self._widths.items()}
        buffers["input"] = x
        for step in self.steps:
            if isinstance(step, Product):
                residual = None if step.residual is None else buffers[step.residual]
                source = buffers[step.source][..., : step.linear.inputs]
                y = step.linear.reference(source, residual, factor=step.factor)
                buffers[step.target][..., step.column : step.column + y.size(-1)] = y
            elif isinstance(step, Normalize):
                buffers["output"] = step.norm(buffers["output"])
            elif isinstance(step, Convolve):
                channels = len(step.depthwise.weight)
                y = step.depthwise.reference(buffers["wide"][..., :channels], valid)
                buffers["mixed"][..., :channels] = y
            else:
                y = _attended(step, buffers["wide"], valid, rotation, positions)
                buffers["mixed"][..., : y.size(-1)] = y
        return buffers["output"]


def _widths(steps: Sequence[Step], dim: int) -> dict[str, int]:
    """Return the width of each buffer: the widest of what steps write there."""
    widths = dict.fromkeys(BUFFERS, 0) | {"input": dim, "output": dim}
    for step in steps:
        if isinstance(step, Product):
            end = step.column + step.linear.results
            if (step.target == "output" and end != dim) or step.target == "input":
                raise ValueError(f"{end} results for a block of {dim}")
            widths[step.target] = max(widths[step.target], end)
        elif isinstance(step, Attend):
            widths["mixed"] = max(widths["mixed"], len(step.attention.query) * step.head_dim)
        elif isinstance(step, Convolve):
            widths["mixed"] = max(widths["mixed"], len(step.depthwise.weight))
    return widths


def _attended(
    step: Attend,
    wide: Tensor,
    valid: Tensor | None,
    rotation: Tensor | None,
    positions: Tensor | None,
) -> Tensor:
    """Return what an attention makes of queries, keys and values side by side."""
    heads = len(step.attention.query)

    def split(x: Tensor) -> Tensor:
        return x.unflatten(-1, (heads, step.head_dim)).transpose(-3, -2)

    dim = heads * step.head_dim
    query, key, value = (split(each) for each in wide[..., : 3 * dim].chunk(3, dim=-1))
    relative = None
    if positions is not None:
        relative = RelativePositions(split(positions), step.content_bias, step.position_bias)
    mixed = step.attention.reference(query, key, value, valid, rotation=rotation, relative=relative)
    return mixed.transpose(1, 2).flatten(2)
