"""MACs against hand-worked cases, a closed form of every family, and a published total."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional

from espnet_lite.encoders.conformer import ConformerConfig
from espnet_lite.encoders.families import ENCODERS
from espnet_lite.encoders.front_end import FRONT_ENDS, LogMelConfig, StackedLogMelConfig
from espnet_lite.encoders.hubert import HubertBaseConfig
from espnet_lite.encoders.sparseformer import SparseformerConfig
from espnet_lite.encoders.squeezeformer import SqueezeformerConfig
from espnet_lite.encoders.transformer import TransformerConfig
from espnet_lite.encoders.waveform import WaveformConfig
from espnet_lite.nn.kinds import TABLE
from espnet_lite.profile import macs
from espnet_lite.profile.macs import SUPERB_SAMPLES, count_macs, profile_shapes
from espnet_lite.profile.network import Subject


def fake() -> FakeTensorMode:
    return FakeTensorMode(allow_non_fake_inputs=True)


class Products(nn.Module):
    """A function as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *inputs):
        return self.function(*inputs)


@pytest.mark.parametrize(
    ("module", "shapes", "expected"),
    [
        (nn.Linear(5, 7), [(2, 3, 5)], 2 * 3 * 5 * 7),  # the bias is none
        (nn.Linear(5, 7, bias=False), [(5,)], 5 * 7),
        # 20 frames under a kernel of 4, two apart: 9; each of 6 outputs sees 8/2 channels
        (nn.Conv1d(8, 6, 4, stride=2, groups=2), [(3, 8, 20)], 3 * 9 * 6 * (8 // 2) * 4),
        (nn.Conv1d(8, 8, 5, groups=8, padding=2), [(1, 8, 20)], 20 * 8 * 5),  # depthwise
        (nn.Conv2d(1, 4, 3, stride=2), [(1, 1, 9, 7)], 4 * 4 * 3 * 9),
        # transposed: each of the 6 inputs by the filters of 3 channels
        (nn.ConvTranspose1d(2, 3, 4, stride=2), [(1, 2, 6)], 6 * 2 * 3 * 4),
        (Products(torch.bmm), [(4, 2, 3), (4, 3, 5)], 4 * 2 * 3 * 5),
        (Products(torch.matmul), [(2, 4, 2, 3), (2, 4, 3, 5)], 8 * 2 * 3 * 5),
        (Products(torch.baddbmm), [(4, 2, 5), (4, 2, 3), (4, 3, 5)], 4 * 2 * 3 * 5),
        (Products(lambda a, b: torch.einsum("nd,md->nm", a, b)), [(2, 3), (5, 3)], 2 * 3 * 5),
        # 6 queries by 9 keys of 8, then 6×9 probabilities by values of 8, in 2 × 4 heads
        (
            Products(functional.scaled_dot_product_attention),
            [(2, 4, 6, 8), (2, 4, 9, 8), (2, 4, 9, 8)],
            2 * 4 * 6 * 9 * (8 + 8),
        ),
        (Products(lambda x: x.softmax(-1) * x + x.sum()), [(3, 4)], 0),
        (Products(torch.fft.rfft), [(3, 16)], 0),
    ],
)
def test_a_case_by_hand(module, shapes, expected):
    with fake():
        assert sum(count_macs(module, *map(torch.zeros, shapes)).values()) == expected
    assert sum(count_macs(module, *map(torch.zeros, shapes)).values()) == expected  # with data too


def test_macs_stand_at_the_innermost_module():
    model = nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.ReLU(), nn.Linear(3, 4)))
    assert count_macs(model, torch.zeros(5, 2)) == {"0": 5 * 2 * 3, "1.1": 5 * 3 * 4}
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())


def test_an_op_that_multiplies_and_has_no_formula_is_refused():
    with pytest.raises(
        ValueError, match=r"nothing is known of the MACs of the op aten\.mv\.default"
    ):
        count_macs(Products(torch.mv), torch.zeros(2, 3), torch.zeros(3))


@pytest.fixture
def own_op():
    """An op of the toolkit's namespace, for one test."""
    library = torch.library.Library("espnet_lite", "FRAGMENT")
    library.define("test_product(Tensor a, Tensor b) -> Tensor")
    library.impl("test_product", lambda a, b: a.new_zeros(a.size(0), b.size(1)), "CPU")
    library.impl("test_product", lambda a, b: a.new_zeros(a.size(0), b.size(1)), "Meta")
    yield torch.ops.espnet_lite.test_product
    library._destroy()


def test_ops_of_our_own_need_a_formula_and_bring_it_in_flops(own_op, monkeypatch):
    model = Products(own_op)
    with fake():
        inputs = torch.zeros(2, 3), torch.zeros(3, 5)
        with pytest.raises(ValueError, match=r"test_product\.default: give it a formula"):
            count_macs(model, *inputs)

        def flops(a, b, out_shape=None):
            assert out_shape == (2, 5)
            return 2 * a[0] * a[1] * b[1]

        monkeypatch.setitem(macs.FORMULAS, own_op.default, macs._halved(flops))
        assert count_macs(model, *inputs) == {"": 2 * 3 * 5}


def test_a_model_may_look_at_the_length_of_its_one_utterance():
    def product(x, lengths):
        return x @ x.T if bool((lengths == x.size(0)).all()) else x

    with fake():
        assert count_macs(Products(product), torch.zeros(3, 2), torch.tensor([3])) == {"": 18}
        assert count_macs(Products(product), torch.zeros(3, 2), torch.tensor([2])) == {}


# ---- closed forms, written from the papers' formulas and not from the code -----------------------


def mel_frames(samples: int, mels: int) -> tuple[int, int]:
    """Return frames of 25 ms every 10 ms at 16 kHz, and the filterbank's MACs: 257 bins by filters
    for each frame that is computed, which are those that begin in the utterance or 113 samples on."""
    return 1 + (samples - 400) // 160, math.ceil((samples + 113) / 160) * 257 * mels


def log_mel(config: LogMelConfig, samples: int, dim: int) -> tuple[int, dict[str, int]]:
    time, features = mel_frames(samples, config.num_mels)
    bins, channels, subsampling = config.num_mels, 1, 0
    for stride in {4: (2, 2), 2: (2, 1)}[config.subsampling]:
        time, bins = (time - 3) // stride + 1, (bins - 3) // stride + 1
        if config.separable and channels > 1:  # by channel, then across channels
            subsampling += time * bins * channels * (9 + channels)
        else:
            subsampling += time * bins * config.channels * channels * 9
        channels = config.channels
    subsampling += time * bins * channels * dim
    return time, {"features": features, "subsampling": subsampling}


def stacked_log_mel(config: StackedLogMelConfig, samples: int, dim: int):
    frames, features = mel_frames(samples, config.num_mels)
    time = frames // config.stack
    joined = config.num_mels * config.stack
    return time, {"features": features, "front_end": time * joined * dim}


def waveform(config: WaveformConfig, samples: int, dim: int) -> tuple[int, dict[str, int]]:
    time, channels_in, front_end = samples, 1, 0
    for channels, kernel, stride in config.convolutions:
        time = (time - kernel) // stride + 1
        front_end += time * channels * channels_in * kernel
        channels_in = channels
    return time, {"front_end": front_end + time * channels_in * dim}


def transformer(config: TransformerConfig, time: int) -> dict[str, int]:
    return {
        "attention_linear": config.layers * time * 4 * config.dim**2,
        "attention_matmul": config.layers * 2 * time**2 * config.dim,
        "feed_forward": config.layers * time * 2 * config.dim * config.feed_forward,
    }


def hubert(config: HubertBaseConfig, time: int) -> dict[str, int]:
    group = config.dim // config.position_groups
    # An even kernel, padded by its half on both sides, gives a frame too many, which is dropped.
    computed = time + 1 - config.position_kernel % 2
    positions = computed * config.dim * group * config.position_kernel
    return {**transformer(config, time), "conv_positional": positions}


def sparseformer(config: SparseformerConfig, time: int) -> dict[str, int]:
    """Without global tokens: each frame with those of the window that there are."""
    assert config.global_tokens == 0
    window = round(1000 * config.window_seconds / config.frame_ms)
    pairs = sum(min(i + window, time - 1) - max(i - window, 0) + 1 for i in range(time))
    parts = transformer(config, time)
    parts["attention_matmul"] = config.layers * 2 * pairs * config.dim
    return parts


def relative_attention(dim: int, time: int) -> dict[str, int]:
    """Queries are taken 128 at a time, each such block with the distances that it needs."""
    sizes = [min(128, time - start) for start in range(0, time, 128)]
    distances = sum(size * (time + size - 1) for size in sizes)
    return {
        "attention_linear": (4 * time + 2 * time - 1) * dim**2,
        "attention_matmul": (2 * time**2 + distances) * dim,
    }


def conformer(config: ConformerConfig, time: int) -> dict[str, int]:
    dim = config.dim
    block = {
        **relative_attention(dim, time),
        "feed_forward": 2 * time * 2 * dim * config.feed_forward,
        "conv_pointwise": time * (dim * 2 * dim + dim * dim),
        "conv_depthwise": time * dim * config.kernel,
    }
    return {kind: config.layers * macs for kind, macs in block.items()}


def squeezeformer(config: SqueezeformerConfig, time: int) -> dict[str, int]:
    dim, half = config.dim, (time + 1) // 2
    parts = {
        "conv_pointwise": (half + time) * dim**2,  # reduction, recovery
        "conv_depthwise": half * dim * 5,
    }
    for layer in range(config.layers):
        frames = half if config.reduce_after <= layer < config.recover_after else time
        block = {
            **relative_attention(dim, frames),
            "feed_forward": 2 * frames * 2 * dim * config.feed_forward,
            "conv_pointwise": frames * 4 * dim**2,
            "conv_depthwise": frames * 2 * dim * config.kernel,
        }
        parts = {kind: parts.get(kind, 0) + macs for kind, macs in block.items()}
    return parts


CLOSED_FRONT_ENDS = {
    "log_mel": log_mel,
    "stacked_log_mel": stacked_log_mel,
    "waveform": waveform,
}
CLOSED_ENCODERS = {
    "transformer": transformer,
    "hubert_base": hubert,
    "hubert_large": hubert,
    "conformer": conformer,
    "squeezeformer": squeezeformer,
    "sparseformer": sparseformer,
}


def closed_form(subject: Subject, front_end: str, encoder: str, samples: int) -> dict[str, int]:
    dim = subject.encoder.dim
    time, before = CLOSED_FRONT_ENDS[front_end](subject.front_end, samples, dim)
    parts = {**before, **CLOSED_ENCODERS[encoder](subject.encoder, time)}
    if subject.vocab:
        parts["head"] = time * dim * subject.vocab
    return parts


def subject_of(front_end: str, encoder: str, *, vocab: int | None = None, **changes) -> Subject:
    return Subject(
        path=Path("x.yaml"),
        source="config",
        front_end=FRONT_ENDS[front_end][0](**changes),
        encoder=ENCODERS[encoder][0](),
        vocab=vocab,
    )


@pytest.mark.parametrize("encoder", ENCODERS)
def test_encoders_by_closed_form(encoder):
    """A new encoder brings its closed form (CLOSED_ENCODERS) and its kinds (nn/kinds.py)."""
    subject = subject_of("log_mel", encoder, vocab=30)
    for found in profile_shapes(subject, [33333]).utterances:
        assert found.by_kind == closed_form(subject, "log_mel", encoder, found.samples)


@pytest.mark.parametrize(
    ("front_end", "changes"),
    [
        *((name, {}) for name in FRONT_ENDS),
        ("log_mel", {"subsampling": 2, "channels": 8, "num_mels": 40}),
        ("log_mel", {"separable": True, "channels": 8}),
        ("stacked_log_mel", {"stack": 4}),
        ("waveform", {"norm": "layer", "conv_bias": True, "normalize": True}),
    ],
)
def test_front_ends_by_closed_form(front_end, changes):
    subject = subject_of(front_end, "transformer", **changes)
    subject = replace(subject, encoder=TransformerConfig(dim=32, layers=1))
    for found in profile_shapes(subject, [16000, 20560, 33333]).utterances:
        assert found.by_kind == closed_form(subject, front_end, "transformer", found.samples)
        assert found.total == sum(found.by_kind.values())


def test_superb_utterances():
    assert len(SUPERB_SAMPLES) == 32 and list(SUPERB_SAMPLES) == sorted(SUPERB_SAMPLES)
    assert sum(SUPERB_SAMPLES) == 224.86 * 16000


def test_hubert_base_has_the_published_macs():
    """1669 G in SUPERB's table (s3prl); Linears 57 %, convolutions over the waveform 33 %,
    attention's products 6 %, positional convolution 3 %."""
    subject = subject_of("waveform", "hubert_base")
    total: dict[str, int] = {}
    for samples in SUPERB_SAMPLES:
        for kind, part in closed_form(subject, "waveform", "hubert_base", samples).items():
            total[kind] = total.get(kind, 0) + part
    shapes = profile_shapes(subject, SUPERB_SAMPLES[-1:])  # one counted stands for all
    [longest] = shapes.utterances
    assert longest.by_kind == closed_form(subject, "waveform", "hubert_base", longest.samples)
    assert sum(total.values()) == pytest.approx(1669e9, rel=0.01)
    share = {kind: 100 * part / sum(total.values()) for kind, part in total.items()}
    assert share["attention_linear"] + share["feed_forward"] == pytest.approx(57, abs=0.5)
    assert share["front_end"] == pytest.approx(33, abs=0.5)
    assert share["attention_matmul"] == pytest.approx(6, abs=0.5)
    assert share["conv_positional"] == pytest.approx(3, abs=0.5)
    # 94.70 M with the heads of pre-training (256 × 768 + 256 and 504 units of 256)
    assert sum(shapes.parameters.values()) == pytest.approx(94.70e6 - 325888, abs=0.01e6)


def test_parameters_by_kind_and_bytes_in_bf16():
    config = TransformerConfig(dim=8, layers=1, heads=2, feed_forward=16)
    subject = Subject(
        Path("x.yaml"), "config", LogMelConfig(num_mels=20, channels=3), config, vocab=5
    )
    shapes = profile_shapes(subject, [])
    assert shapes.parameters == {
        "subsampling": (9 * 3 + 3) + (3 * 3 * 9 + 3) + (3 * 4 * 8 + 8),
        "attention_linear": 4 * (64 + 8),
        "feed_forward": 8 * 16 + 16 + 16 * 8 + 8,
        "head": 8 * 5 + 5,
        "other": 3 * 2 * 8,  # norms
    }
    vectors = 3 + 3 + 8 + 4 * 8 + 16 + 8 + 5 + 48
    statistics = 2 * 20
    matrices = sum(shapes.parameters.values()) - vectors
    assert shapes.bf16_bytes == 2 * matrices + 4 * (vectors + statistics)
    assert shapes.utterances == []


def test_products_outside_of_any_kind_are_refused(monkeypatch):
    monkeypatch.delitem(TABLE, "DotProductAttention")
    subject = subject_of("log_mel", "transformer")
    with pytest.raises(ValueError, match=r"\.dot_product' multiplies and is of no kind"):
        profile_shapes(subject, [16000])
