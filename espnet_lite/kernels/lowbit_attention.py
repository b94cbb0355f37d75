"""Self-attention whose products multiply integers: in torch, and fused in C++.

    scores = acc(query, key) · (s_query · s_key) [+ acc(position_query, positions) · … of the distance]
    mixed = acc(softmax(scores / √head_dim), value) · (s_probabilities · s_value)

with acc the integer products of codes (activation_codes.py). Query i sees the keys j with |i − j| ≤ window;
the first `global_tokens` positions see all and are seen by all. A query that may see no key gets zeros
(in torch: some mix).
"""

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from espnet_lite.kernels.activation_codes import ActivationCodes, QuantizerStruct
from espnet_lite.kernels.library import kernel

HIDDEN = -1.0e4  # added to the score of a key that is not seen: its probability is exactly 0


class OperandStruct(ctypes.Structure):
    """`Operand` of sources/attention_heads.h."""

    _fields_ = (
        ("x", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("batch", "head", "frame")),
        ("quantizers", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
    )


_OPERANDS = ("query", "key", "value", "position_query", "positions")


class AttentionStruct(ctypes.Structure):
    """`Attention` there."""

    _fields_ = (
        *((name, OperandStruct) for name in _OPERANDS),
        *((name, ctypes.c_void_p) for name in ("probabilities", "rotation", "key_valid", "out")),
        *((name, ctypes.c_int64) for name in ("out_batch", "out_head", "out_frame")),
        *((name, ctypes.c_int64) for name in ("batch", "heads", "frames", "head_dim")),
        *((name, ctypes.c_int64) for name in ("window", "global_tokens")),
    )


ARGUMENTS = (ctypes.c_void_p, ctypes.c_int)


@dataclass(frozen=True)
class RelativePositions:
    """What relative attention adds to the scores (Transformer-XL, Dai et al. 2019, 1901.02860).

    Attributes:
        positions: (heads, 2 · time − 1, head_dim), of the distances from time − 1 down.
        content_bias, position_bias: (heads, head_dim), added to the queries that meet keys, and to those
            that meet positions.
    """

    positions: Tensor
    content_bias: Tensor
    position_bias: Tensor


@dataclass
class LowBitAttention:
    """The products of one attention. Codes are one rule for each head.

    Attributes:
        query, key, value, probabilities: what they become; values not absmax, whose scale would not
            leave the sum over frames.
        position_query, positions: the same of relative attention, or none.
        window: frames seen on either side; None: all.
        global_tokens: positions at the beginning that see all and are seen by all.
    """

    query: Sequence[ActivationCodes]
    key: Sequence[ActivationCodes]
    value: Sequence[ActivationCodes]
    probabilities: Sequence[ActivationCodes]
    position_query: Sequence[ActivationCodes] = ()
    positions: Sequence[ActivationCodes] = ()
    window: int | None = None
    global_tokens: int = 0
    _structs: dict[str, ctypes.Array] = field(init=False, repr=False)

    def __post_init__(self):
        if any(codes.kind == "absmax" for codes in self.value):
            raise ValueError("values of kind 'absmax', expected a scale that is given")
        rules = {name: getattr(self, name) for name in (*_OPERANDS, "probabilities")}
        for name, codes in rules.items():
            if codes and len(codes) != len(self.query):
                raise ValueError(f"{name}: {len(codes)} rules for {len(self.query)} heads")
            if any(rule.zero for rule in codes):
                raise ValueError(f"{name}: unsigned codes of 8 bits")
        self._structs = {
            name: (QuantizerStruct * len(codes))(*(rule.struct() for rule in codes))
            for name, codes in rules.items()
        }

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_valid: Tensor | None = None,
        *,
        rotation: Tensor | None = None,
        relative: RelativePositions | None = None,
    ) -> Tensor:
        """Return the mixed values.

        Args:
            query, key, value: (batch, heads, time, head_dim), fp32.
            key_valid: (batch, time), True where a key may be seen; None: all.
            rotation: (2, time, head_dim / 2), cosine and sine by which queries and keys are turned.
            relative: of attention with relative positions.

        Returns:
            (batch, heads, time, head_dim).
        """
        function = kernel("lowbit_attention", ARGUMENTS)
        if function is None:
            return self.reference(
                query, key, value, key_valid, rotation=rotation, relative=relative
            )
        return self.fused(
            function, query, key, value, key_valid, rotation=rotation, relative=relative
        )

    def struct(
        self,
        head_dim: int,
        *,
        content_bias: Tensor | None = None,
        position_bias: Tensor | None = None,
    ) -> AttentionStruct:
        """Return what of the attention is the same in each call; this object and the biases have to stay."""
        biases = {"query": content_bias, "position_query": position_bias}
        operands = []
        for name in _OPERANDS:
            bias, rules = biases.get(name), self._structs[name]
            operands.append(
                OperandStruct(
                    quantizers=ctypes.addressof(rules) if len(rules) else None,
                    bias=None if bias is None else bias.data_ptr(),
                )
            )
        return AttentionStruct(
            *operands,
            probabilities=ctypes.addressof(self._structs["probabilities"]),
            heads=len(self.query),
            head_dim=head_dim,
            window=-1 if self.window is None else self.window,
            global_tokens=self.global_tokens,
        )

    def fused(
        self,
        function: Callable[..., int],
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_valid: Tensor | None = None,
        *,
        rotation: Tensor | None = None,
        relative: RelativePositions | None = None,
    ) -> Tensor:
        """Return the same, computed by the C++ `function` of any level."""
        batch, heads, frames, head_dim = query.shape
        self._check(query, key, value, key_valid, rotation, relative)
        given = {"query": query, "key": key, "value": value}
        biases: dict[str, Tensor] = {}
        if relative is not None:
            given |= {"position_query": query, "positions": relative.positions[None]}
            biases = {"query": relative.content_bias, "position_query": relative.position_bias}
        given = {name: x if x.stride(-1) == 1 else x.contiguous() for name, x in given.items()}
        biases = {name: bias.contiguous() for name, bias in biases.items()}
        tables = [] if rotation is None else [rotation]
        if any(x.dtype != torch.float32 for x in (*given.values(), *biases.values(), *tables)):
            raise ValueError("an input is not float32")
        out = query.new_empty(batch, frames, heads, head_dim).transpose(1, 2)
        if key_valid is not None:
            key_valid = key_valid.contiguous()
        if rotation is not None:
            rotation = rotation.contiguous()
        operands = [
            OperandStruct(
                given[name].data_ptr(),
                *given[name].stride()[:3],
                ctypes.addressof(self._structs[name]),
                biases[name].data_ptr() if name in biases else None,
            )
            if name in given
            else OperandStruct()
            for name in _OPERANDS
        ]
        call = AttentionStruct(
            *operands,
            ctypes.addressof(self._structs["probabilities"]),
            None if rotation is None else rotation.data_ptr(),
            None if key_valid is None else key_valid.data_ptr(),
            out.data_ptr(),
            *out.stride()[:3],
            *(batch, heads, frames, head_dim),
            frames if self.window is None else min(self.window, frames),
            min(self.global_tokens, frames),
        )
        if function(ctypes.addressof(call), torch.get_num_threads()):
            raise MemoryError("no memory for the scores of low-bit attention")
        return out

    def _check(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_valid: Tensor | None,
        rotation: Tensor | None,
        relative: RelativePositions | None,
    ) -> None:
        """Raise a ValueError for a tensor of another shape or type than the kernel will read."""
        batch, heads, frames, head_dim = query.shape
        expected = {"key": (key, query.shape), "value": (value, query.shape)}
        if key_valid is not None:
            expected["key_valid"] = (key_valid, (batch, frames))
        if rotation is not None:
            expected["rotation"] = (rotation, (2, frames, head_dim // 2))
        if relative is not None:
            distances = (heads, 2 * frames - 1, head_dim)
            expected["positions"] = (relative.positions, distances)
            expected["content_bias"] = (relative.content_bias, (heads, head_dim))
            expected["position_bias"] = (relative.position_bias, (heads, head_dim))
        for name, (tensor, shape) in expected.items():
            if tensor.shape != shape:
                raise ValueError(f"{name} {[*tensor.shape]}, expected {[*shape]}")
        if heads != len(self.query):
            raise ValueError(f"{heads} heads, expected {len(self.query)}")
        if relative is not None and not (self.positions and self.position_query):
            raise ValueError("positions without rules for their codes")
        if key_valid is not None and key_valid.dtype != torch.bool:
            raise ValueError(f"key_valid of {key_valid.dtype}, expected bool")

    def reference(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_valid: Tensor | None = None,
        *,
        rotation: Tensor | None = None,
        relative: RelativePositions | None = None,
    ) -> Tensor:
        """Return the same in torch."""
        frames, head_dim = query.shape[-2:]
        if rotation is not None:
            query, key = _turned(query, rotation), _turned(key, rotation)
        content = query if relative is None else query + relative.content_bias[:, None]
        scores = _products(*_codes(self.query, content), *_codes(self.key, key))
        if relative is not None:
            position_query = query + relative.position_bias[:, None]
            by_distance = _products(
                *_codes(self.position_query, position_query),
                *_codes(self.positions, relative.positions),
            )
            scores = scores + _shifted(by_distance)
        position = torch.arange(frames)
        window = frames if self.window is None else self.window
        seen = (position[:, None] - position).abs() <= window
        seen |= (position[:, None] < self.global_tokens) | (position < self.global_tokens)
        if key_valid is not None:
            seen = seen & key_valid[:, None, None, :]
        scores = scores * head_dim**-0.5
        scores = scores + torch.zeros(seen.shape).masked_fill(~seen, HIDDEN)
        probabilities, scale = _codes(self.probabilities, scores.softmax(dim=-1))
        values, value_scale = _codes(self.value, value)
        return (probabilities.double() @ values.double()).float() * (scale * value_scale)


def _codes(rules: Sequence[ActivationCodes], x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the codes of (…, heads, time, width) and their scales, (…, heads, time or 1, 1)."""
    pairs = [codes(of_head) for codes, of_head in zip(rules, x.unbind(-3), strict=True)]
    scales = [scale.expand(*values.shape[:-1], 1) for values, scale in pairs]
    if rules[0].kind != "absmax":
        scales = [scale[..., :1, :] for scale in scales]
    return torch.stack([values for values, _ in pairs], dim=-3), torch.stack(scales, dim=-3)


def _products(first: Tensor, first_scale: Tensor, second: Tensor, second_scale: Tensor) -> Tensor:
    return (first.double() @ second.double().mT).float() * (first_scale * second_scale.mT)


def _turned(x: Tensor, rotation: Tensor) -> Tensor:
    """Return `x` with the pairs (i, i + head_dim / 2) turned by the angles of their positions."""
    cosine, sine = rotation
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)


def _shifted(by_distance: Tensor) -> Tensor:
    """Return (…, queries, keys) of (…, queries, 2 · queries − 1): key j is at queries − 1 − i + j."""
    queries = by_distance.size(-2)
    rows = torch.arange(queries)
    place = (queries - 1 - rows)[:, None] + rows
    return by_distance.gather(-1, place.expand(*by_distance.shape[:-1], queries))
