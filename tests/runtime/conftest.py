"""A recognizer small enough to build in every test."""

import pytest
import torch

from espnet_lite.runtime.packed_model import PackedModel

TOKENS = ["<blank>", "<unk>", "<space>", "a", "b", "c", "<sos/eos>"]


@pytest.fixture(scope="session")
def header() -> dict:
    """Header of an untrained 2-block recognizer over three letters."""
    return {
        "architecture": {
            "front_end": {"name": "log_mel", "num_mels": 20, "channels": 4},
            "encoder": {
                "name": "transformer",
                "dim": 16,
                "layers": 2,
                "heads": 2,
                "feed_forward": 32,
            },
            "decoder": None,
            "vocab": len(TOKENS),
        },
        "sample_rate": 16000,
        "policy": {"weights": "fp32", "decoder": False},
        "tokenizer": {"kind": "char", "nlsyms": [], "tokens": TOKENS},
        "record": {"updates": 0},
    }


@pytest.fixture(scope="session")
def tensors(header) -> dict[str, torch.Tensor]:
    """Random weights of that recognizer."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = PackedModel(header).state_dict()
    state["front_end.cmvn.mean"] = torch.full((20,), -3.0)
    return state
