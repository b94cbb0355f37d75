"""Small fake-quantized recognizers of every family, at every policy of the study."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

from espnet_lite.config import from_plain, to_plain
from espnet_lite.models.asr import AsrConfig, AsrModel
from espnet_lite.quantize.calibration import start_activations
from espnet_lite.quantize.policy import Rule, quantize_modules

TOKENS = ["<blank>", "<unk>", "<space>", "a", "b", "c", "<sos/eos>"]
BASE = {"dim": 16, "layers": 3, "heads": 2, "feed_forward": 32}
ENCODERS = {
    "transformer": {"positions": "rotary"},
    "conformer": {"kernel": 5},
    "squeezeformer": {"kernel": 5, "reduce_after": 1, "recover_after": 2},
    "sparseformer": {"window_seconds": 0.2, "global_tokens": 1},
    "hubert_base": {"position_kernel": 6, "position_groups": 2},
}
POLICIES: dict[str, tuple[float, int]] = {
    "w8a8": (8, 8),
    "w4a8": (4, 8),
    "w2a8": (2, 8),
    "w1.58a8": (1.58, 8),
    "w2a16": (2, 16),
    "w1a16": (1, 16),
    "w1a8": (1, 8),
    "w1a4": (1, 4),
    "w1a2": (1, 2),
    "w1a1": (1, 1),
    "w16a8": (16, 8),
    "w3a5": (3, 5),
}


def small_model(encoder: str) -> AsrModel:
    """Return a recognizer of random weights in evaluation mode."""
    torch.manual_seed(0)
    plain = {
        "front_end": {
            "name": "log_mel",
            "num_mels": 20,
            "channels": 4,
            "separable": encoder == "squeezeformer",
        },
        "encoder": {"name": encoder, **BASE, **ENCODERS[encoder]},
    }
    return AsrModel(from_plain(AsrConfig, plain), vocab=len(TOKENS)).eval()


def rules_of(policy: str, encoder: str) -> list[Rule]:
    """Return the rules: blocks at the policy's bits, subsampling and head with weights of 8 bits, a
    positional convolution of 8 by 8."""
    weight_bits, activation_bits = POLICIES[policy]
    kinds = ["attention_linear", "attention_matmul", "feed_forward"]
    if encoder in ("conformer", "squeezeformer"):
        kinds += ["conv_pointwise", "conv_depthwise"]
    blocks = Rule(tuple(kinds), weight_bits=float(weight_bits), activation_bits=activation_bits)
    rules = [blocks, Rule(("subsampling", "head"), weight_bits=8.0)]
    if encoder == "hubert_base":
        rules.append(Rule(("conv_positional",), weight_bits=8.0, activation_bits=8))
    return rules


def speech(*samples: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return zero-padded noise of these lengths, and the lengths."""
    waveform = torch.zeros(len(samples), max(samples))
    for row, count in enumerate(samples):
        generator = torch.Generator().manual_seed(count)
        waveform[row, :count] = 0.1 * torch.randn(count, generator=generator)
    return waveform, torch.tensor(samples)


def quantized_model(encoder: str, policy: str) -> AsrModel:
    """Return a fake-quantized recognizer whose activations were measured on noise."""
    model = small_model(encoder)
    quantize_modules(model, rules_of(policy, encoder), where="rules")
    start_activations(model, lambda: model.encode(*speech(16000, 16000)))
    return model.eval()


def header_of(model: AsrModel) -> dict:
    """Return the packed header of a model, without what is quantized."""
    plain = to_plain(model.config)
    return {
        "architecture": {
            "front_end": plain["front_end"],
            "encoder": plain["encoder"],
            "decoder": None,
            "vocab": len(TOKENS),
        },
        "sample_rate": 16000,
        "policy": {"weights": "fp32"},
        "tokenizer": {"kind": "char", "nlsyms": [], "tokens": TOKENS},
        "record": {"updates": 0},
    }


@pytest.fixture(scope="session")
def small_models() -> SimpleNamespace:
    """The functions of this file."""
    parts: list[Callable] = [small_model, quantized_model, rules_of, speech, header_of]
    return SimpleNamespace(**{part.__name__: part for part in parts})


def pytest_generate_tests(metafunc):
    """Run what asks for `encoder` or `policy` for all of them."""
    for name, values in (("encoder", ENCODERS), ("policy", POLICIES)):
        if name in metafunc.fixturenames and name not in _given(metafunc):
            metafunc.parametrize(name, list(values))


def _given(metafunc) -> set[str]:
    """Return the arguments that marks of the test itself give."""
    marks = metafunc.definition.iter_markers("parametrize")
    names = (mark.args[0] for mark in marks)
    return {
        name.strip()
        for given in names
        for name in (given.split(",") if isinstance(given, str) else given)
    }
