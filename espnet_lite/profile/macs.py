"""Multiply-accumulates of a forward pass, counted op by op on tensors that have shapes and no data.

A MAC is one multiplication and the addition of its product: of matrix products, convolutions and
attention. Biases, norms, activations, softmax and the FFT have none. What runs is counted, on the path that a CPU takes: padding that
is computed counts, a product that is skipped does not.
"""

import contextlib
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from espnet_lite.kernels.flops import FLOP_FORMULAS
from espnet_lite.nn.kinds import module_kinds
from espnet_lite.profile.network import Subject, build_network
from espnet_lite.runtime.pack import PackPolicy, apply_policy

# SUPERB's protocol (2105.01051; s3prl): 32 utterances of LibriSpeech test-clean, each alone in its
# batch. Samples at 16 kHz; 224.86 s in all.
SUPERB_SAMPLES = (
    *(20560, 34560, 38480, 42560, 45600, 48720, 52000, 55120, 59120, 62720, 66400),
    *(71200, 75200, 78640, 82800, 87520, 92720, 98560, 104400, 111120, 118480, 125040),
    *(132720, 142640, 154000, 166720, 180880, 197920, 217920, 239280, 268160, 326000),
)
SUPERB_RATE = 16000  # Hz

OTHER = "other"  # parameters without MACs: norms, positions, learned vectors

Shape = Sequence[int]


def _matmul(first: Shape, second: Shape, **_) -> int:
    """(…, n, k) by (…, k, m)."""
    return math.prod(first) * second[-1]


def _matmul_added(bias: Shape, first: Shape, second: Shape, **_) -> int:
    return _matmul(first, second)


def _convolution(
    x: Shape, weight: Shape, bias, stride, padding, dilation, transposed: bool, *_, out_shape: Shape
) -> int:
    """Each output (transposed: each input) by the filter of its channel, (channels in / groups, kernel)."""
    return math.prod(x if transposed else out_shape) * math.prod(weight[1:])


def _attention(query: Shape, key: Shape, value: Shape, *_args, **_) -> int:
    """Both products of softmax(QKᵀ)V, every query with every key."""
    return math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _halved(flops: Callable[..., int]) -> Callable[..., int]:
    """Return the MACs for a formula of FLOPs, two a MAC."""
    return lambda *shapes, **named: flops(*shapes, **named) // 2


aten = torch.ops.aten
# Op → MACs of its arguments, tensors as their shapes; keyword out_shape: of the output.
FORMULAS: dict[object, Callable[..., int]] = {
    aten.mm: _matmul,
    aten.bmm: _matmul,
    aten.addmm: _matmul_added,
    aten.baddbmm: _matmul_added,
    aten.convolution: _convolution,
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    **{op: _halved(flops) for op, flops in FLOP_FORMULAS.items()},
}

# Ops that multiply, or may: without a formula they are an error and not a zero.
_PRODUCT = re.compile(r"(\w+_)?(add|badd|addb|b)?(mm|mv)|\w*(dot|convolution|lstm|gru|rnn)\w*")


class MacCounter(TorchDispatchMode):
    """Adds up the MACs of all ops that run in it, by the innermost of some modules.

    Attributes:
        macs: `{module name: MACs}` so far.
    """

    def __init__(self):
        super().__init__()
        self.macs: dict[str, int] = {}
        self._inside: list[str] = []  # names of the modules that are running

    @contextlib.contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """Know, while inside, which module of `model` is running."""
        hooks = []
        for name, module in model.named_modules():
            hooks.append(
                module.register_forward_pre_hook(lambda *_, name=name: self._inside.append(name))
            )
            hooks.append(module.register_forward_hook(self._leave))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _leave(self, module: nn.Module, inputs, output) -> None:
        self._inside.pop()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func.namespace == "prim":  # a tensor's device and the like
            return func(*args, **kwargs)
        formula = FORMULAS.get(func) or FORMULAS.get(func.overloadpacket)
        if formula is None:
            with self:  # an op made of others is counted by them
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
            _check_multiplies_nothing(func)
            return func(*args, **kwargs)
        result = func(*args, **kwargs)
        name = self._inside[-1] if self._inside else ""
        macs = formula(*_shapes(args), **_shapes(kwargs), out_shape=_shapes(result))
        self.macs[name] = self.macs.get(name, 0) + macs
        return result


def _shapes(values):
    """Return `values`, nested as they are, with the shape of each tensor in its place."""
    return tree_map(lambda value: value.shape if isinstance(value, Tensor) else value, values)


def _check_multiplies_nothing(func) -> None:
    """Raise a ValueError for an op that multiplies and has no formula."""
    namespace, _, name = func._schema.name.partition("::")
    if namespace == "espnet_lite" or _PRODUCT.fullmatch(name):
        raise ValueError(f"nothing is known of the MACs of the op {func}: give it a formula")


def count_macs(model: nn.Module, *inputs: Tensor) -> dict[str, int]:
    """Return `{module name: MACs}` of `model(*inputs)`, each MAC at the innermost module.

    Raises:
        ValueError: an op that multiplies and has no formula.
    """
    counter = MacCounter()
    with torch.no_grad(), counter.watching(model), counter:
        model(*inputs)
    return counter.macs


@dataclass(frozen=True)
class UtteranceMacs:
    """What one utterance costs: its samples, and MACs by kind of module."""

    samples: int
    by_kind: dict[str, int]

    @property
    def total(self) -> int:
        return sum(self.by_kind.values())


@dataclass(frozen=True)
class Shapes:
    """What the shapes of a network tell."""

    parameters: dict[str, int]  # what is of no kind (norms, learned vectors) under "other"
    bf16_bytes: int  # of the weights as a bf16 policy packs them
    utterances: list[UtteranceMacs]
    by_module: dict[str, int]  # MACs of all utterances, each at the innermost module


def profile_shapes(subject: Subject, samples: Sequence[int]) -> Shapes:
    """Return parameters and MACs of a subject, each utterance alone, nothing computed.

    Raises:
        ValueError: a product outside of any module that nn/kinds.py knows, or one whose MACs are not
            known: a fault of the toolkit.
    """
    # Constants of the front end are real tensors, which the mode takes in.
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    network = build_network(subject, mode=mode)
    kinds = module_kinds(network)
    parameters: dict[str, int] = {}
    for name, parameter in network.named_parameters():
        kind = _kind_of(name.rpartition(".")[0], kinds) or OTHER
        parameters[kind] = parameters.get(kind, 0) + parameter.numel()
    with mode:
        stored = apply_policy(network.state_dict(), PackPolicy(weights="bf16"))
    bf16_bytes = sum(tensor.numel() * tensor.element_size() for tensor in stored.values())
    utterances: list[UtteranceMacs] = []
    of_all: dict[str, int] = {}
    for count in samples:
        with mode:  # torch.tensor: its one value stays known, so that lengths can be compared
            inputs = torch.zeros(1, count), torch.tensor([count])
            by_module = count_macs(network, *inputs)
        by_kind: dict[str, int] = {}
        for name, macs in by_module.items():
            kind = _kind_of(name, kinds)
            if kind is None:
                raise ValueError(
                    f"'{name}' multiplies and is of no kind: espnet_lite/nn/kinds.py needs a line"
                )
            by_kind[kind] = by_kind.get(kind, 0) + macs
            of_all[name] = of_all.get(name, 0) + macs
        utterances.append(UtteranceMacs(count, by_kind))
    return Shapes(parameters, bf16_bytes, utterances, of_all)


def _kind_of(name: str, kinds: Mapping[str, str]) -> str | None:
    """Return the kind of a module, or of the nearest one around it that has one."""
    while name and name not in kinds:
        name = name.rpartition(".")[0]
    return kinds.get(name)
