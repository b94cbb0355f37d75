"""Blocks of every level that this processor has: the same as step after step, each by its own kernel, and
near the same in torch."""

import pytest
import torch

from espnet_lite.kernels import (
    lowbit_attention,
    lowbit_block,
    lowbit_depthwise,
    lowbit_linear,
)
from espnet_lite.kernels.activation_codes import ActivationCodes
from espnet_lite.kernels.library import library
from espnet_lite.kernels.lowbit_attention import LowBitAttention, RelativePositions
from espnet_lite.kernels.lowbit_block import (
    ARGUMENTS,
    Attend,
    Convolve,
    LowBitBlock,
    Normalize,
    Product,
)
from espnet_lite.kernels.lowbit_depthwise import LowBitDepthwise
from espnet_lite.kernels.lowbit_linear import LowBitLinear, Norm

DIM, HEADS, HIDDEN = 40, 2, 70
EIGHT = {name: [ActivationCodes("absmax")] * HEADS for name in ("query", "key", "probabilities")}
EIGHT["value"] = [ActivationCodes("lsq", 0.02, low=-128, high=127)] * HEADS
ONE = {name: [ActivationCodes("sign", 0.5)] * HEADS for name in ("query", "key", "value")}
ONE["probabilities"] = [ActivationCodes("binary", 0.03, sparse=True)] * HEADS
RULES = {"8 bits": EIGHT, "1 bit": ONE}


def block_of(level: str):
    """Return the C function of a block."""
    return library().function("lowbit_block", level, ARGUMENTS)


class Drawn:
    """Parts of blocks with random weights."""

    def __init__(self, rules: str):
        self.generator = torch.Generator().manual_seed(3)
        self.is_one = rules == "1 bit"
        self.attention = RULES[rules]

    def normal(self, *shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=self.generator)

    def norm(self, size: int = DIM, *, epsilon: float | None = 1e-5) -> Norm:
        return Norm(1 + 0.1 * self.normal(size), 0.1 * self.normal(size), epsilon)

    def linear(self, inputs: int, outputs: int, **given) -> LowBitLinear:
        weight = (2 * self.normal(outputs, inputs)).round().clamp(-128, 127)
        weight = torch.where(weight < 0, -1, 1) if self.is_one else weight.int()
        codes = ActivationCodes("sign", 0.8) if self.is_one else ActivationCodes("absmax")
        return LowBitLinear(
            weight,
            weight_bits=1 if self.is_one else 8,
            weight_scale=torch.full((outputs,), 0.3 / inputs**0.5),
            bias=0.1 * self.normal(outputs),
            codes=codes,
            **given,
        )

    def pre_norm(self) -> LowBitBlock:
        """Return a Transformer's block with a window; queries are projected by themselves."""
        return LowBitBlock(
            [
                Product(self.linear(DIM, DIM, norm=self.norm()), "input", "wide"),
                Product(self.linear(DIM, 2 * DIM, norm=self.norm()), "input", "wide", column=DIM),
                Attend(LowBitAttention(**self.attention, window=9), DIM // HEADS),
                Product(self.linear(DIM, DIM), "mixed", "output", residual="input"),
                Product(
                    self.linear(DIM, HIDDEN, activation="gelu", norm=self.norm()), "output", "own"
                ),
                Product(self.linear(HIDDEN, DIM), "own", "output", residual="output", factor=0.5),
            ],
            dim=DIM,
        )

    def convolutional(self) -> LowBitBlock:
        """Return a block with relative positions, a convolution wider than it, and LayerNorms behind."""
        more = dict.fromkeys(("position_query", "positions"), self.attention["key"])
        biases = [self.normal(HEADS, DIM // HEADS) for _ in range(2)]
        depthwise = LowBitDepthwise(
            torch.randint(-9, 9, (HIDDEN, 5), generator=self.generator),
            weight_scale=torch.tensor(0.05),
            bias=None,
            codes=ActivationCodes("lsq", 0.05, low=-128, high=127),
            activation="swish",
        )
        scale_and_shift = self.norm(epsilon=None)
        return LowBitBlock(
            [
                Product(self.linear(DIM, HIDDEN, norm=scale_and_shift), "input", "own"),
                Product(self.linear(HIDDEN, DIM), "own", "output", residual="input"),
                Normalize(self.norm()),
                Product(self.linear(DIM, 3 * DIM), "output", "wide"),
                Attend(LowBitAttention(**self.attention, **more), DIM // HEADS, *biases),
                Product(self.linear(DIM, DIM), "mixed", "output", residual="output"),
                Product(self.linear(DIM, 2 * HIDDEN, activation="glu"), "output", "wide"),
                Convolve(depthwise),
                Product(self.linear(HIDDEN, DIM), "mixed", "output", residual="output"),
                Normalize(self.norm()),
            ],
            dim=DIM,
        )


def by_kernels(block: LowBitBlock, level: str, x, valid, positions) -> torch.Tensor:
    """Return what a block is, each step a call of its own kernel."""
    linear, attention, depthwise = (
        library().function(module.__name__.rpartition(".")[2], level, module.ARGUMENTS)
        for module in (lowbit_linear, lowbit_attention, lowbit_depthwise)
    )

    def split(y: torch.Tensor) -> torch.Tensor:
        return y.unflatten(-1, (HEADS, -1)).transpose(-3, -2)

    buffers = {"input": x, "wide": torch.empty(*x.shape[:2], 0)}
    for step in block.steps:
        if isinstance(step, Product):
            residual = None if step.residual is None else buffers[step.residual]
            source = buffers[step.source]
            y = step.linear.fused(linear, source, residual, factor=step.factor)
            beside = [buffers[step.target][..., : step.column]] if step.column else []
            buffers[step.target] = torch.cat([*beside, y], dim=-1)
        elif isinstance(step, Normalize):
            buffers["output"] = step.norm(buffers["output"])
        elif isinstance(step, Convolve):
            buffers["mixed"] = step.depthwise.fused(depthwise, buffers["wide"], valid)
        else:
            query, key, value = (split(each) for each in buffers["wide"].chunk(3, dim=-1))
            relative = None
            if positions is not None:
                biases = step.content_bias, step.position_bias
                relative = RelativePositions(split(positions), *biases)
            mixed = step.attention.fused(attention, query, key, value, valid, relative=relative)
            buffers["mixed"] = mixed.transpose(1, 2).flatten(2)
    return buffers["output"]


def assert_near(found: torch.Tensor, expected: torch.Tensor, *, most: float) -> None:
    """Compare; a number on the edge of two codes may get either, which the steps behind it spread."""
    difference = (found - expected).abs()
    assert difference.median() < 1e-3 and difference.max() < most, difference.max()


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("kind", ["pre_norm", "convolutional"])
@pytest.mark.parametrize("frames", [1, 33, 230])
def test_a_block_is_its_steps(level, rules, kind, frames):
    drawn = Drawn(rules)
    block = getattr(drawn, kind)()
    x = drawn.normal(2, frames, DIM)
    positions = drawn.normal(2 * frames - 1, DIM) if kind == "convolutional" else None
    valid = torch.arange(frames) < torch.tensor([[frames], [(frames + 1) // 2]])
    for mask in (None, valid):
        found = block.fused(block_of(level), x, mask, positions=positions)
        steps = by_kernels(block, level, x, mask, positions)
        seen = torch.ones_like(valid) if mask is None else mask
        if kind == "pre_norm":
            assert found[seen].equal(steps[seen])
        else:  # LayerNorm as a step is torch's in `by_kernels`: another order of sums
            assert_near(found[seen], steps[seen], most=0.5)
        reference = block.reference(x, mask, positions=positions)
        assert_near(found[seen], reference[seen], most=0.5)


def test_padding_changes_no_valid_frame(level):
    drawn = Drawn("8 bits")
    block, x = drawn.pre_norm(), drawn.normal(2, 60, DIM)
    valid = torch.arange(60) < torch.tensor([[60], [41]])
    found = block.fused(block_of(level), x, valid)
    alone = block.fused(block_of(level), x[1:, :41])
    assert_near(found[1, :41], alone[0], most=0.1)  # the sums of softmax end in another lane


def test_threads_change_nothing(level):
    drawn = Drawn("8 bits")
    block, x = drawn.convolutional(), drawn.normal(1, 150, DIM)
    positions = drawn.normal(299, DIM)
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            found.append(block.fused(block_of(level), x, positions=positions))
    finally:
        torch.set_num_threads(before)
    assert found[0].equal(found[1]) and found[0].equal(found[2])


def test_the_input_stays_and_nothing_gives_nothing(level):
    drawn = Drawn("1 bit")
    block, x = drawn.pre_norm(), drawn.normal(1, 20, DIM)
    before = x.clone()
    block.fused(block_of(level), x)
    assert x.equal(before)
    assert block.fused(block_of(level), x[:, :0]).shape == (1, 0, DIM)


def test_without_a_kernel_torch_computes_the_same(monkeypatch):
    drawn = Drawn("1 bit")
    block, x = drawn.pre_norm(), drawn.normal(1, 20, DIM)
    fast = block(x)
    monkeypatch.setattr(lowbit_block, "kernel", lambda name, arguments: None)
    assert_near(block(x), fast, most=0.5)


def test_bad_shapes_are_not_read(level):
    drawn = Drawn("8 bits")
    block, relative, x = drawn.pre_norm(), drawn.convolutional(), drawn.normal(2, 20, DIM)
    for made, arguments, given, told in (
        (block, (x[..., 1:],), {}, r"x \[2, 20, 39\] of torch.float32, expected \[2, 20, 40\]"),
        (block, (x.double(),), {}, "of torch.float64, expected"),
        (block, (x, torch.ones(2, 19) > 0), {}, r"valid \[2, 19\] of torch.bool"),
        (block, (x,), {"rotation": torch.zeros(2, 20, 9)}, r"rotation \[2, 20, 9\]"),
        (block, (x,), {"positions": torch.zeros(39, DIM)}, "positions given"),
        (relative, (x,), {}, "positions missing"),
        (relative, (x,), {"positions": torch.zeros(38, DIM)}, r"positions \[38, 40\]"),
    ):
        with pytest.raises(ValueError, match=told):
            made.fused(block_of(level), *arguments, **given)
    with pytest.raises(ValueError, match="70 results for a block of 40"):
        LowBitBlock([Product(drawn.linear(DIM, HIDDEN), "input", "output")], dim=DIM)
