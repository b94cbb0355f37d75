"""Writes packed_v1_bf16.esp and packed_v1_bf16.json: run once; a released golden file never changes.

    python tests/golden/make_packed.py

The JSON holds what a reader must get from the file: a waveform by formula, and its log-probabilities.
"""

import json
from pathlib import Path

import torch

from espnet_lite.config import from_plain, to_plain
from espnet_lite.models.asr import AsrConfig, AsrModel
from espnet_lite.runtime.format import write_packed
from espnet_lite.runtime.pack import PackPolicy, apply_policy
from espnet_lite.runtime.packed_model import PackedModel

FOLDER = Path(__file__).resolve().parent
NAME = "packed_v1_bf16"
TOKENS = ["<blank>", "<unk>", "<space>", "a", "é", "<sos/eos>"]
MODEL = {
    "front_end": {"name": "log_mel", "num_mels": 8, "channels": 2},
    "encoder": {"name": "transformer", "dim": 8, "layers": 1, "heads": 2, "feed_forward": 16},
    "decoder": {"name": "transformer", "layers": 1, "heads": 2, "feed_forward": 8},
}


def waveform(samples: int) -> torch.Tensor:
    """Return a (1, samples) saw of period 160 with a slower square: exact in any language."""
    step = torch.arange(samples)
    return ((step % 160) / 400 - 0.2 + 0.1 * (step // 1000 % 2))[None].float()


def main() -> None:
    config = from_plain(AsrConfig, MODEL)
    torch.manual_seed(0)
    state = AsrModel(config, vocab=len(TOKENS)).state_dict()
    state["front_end.cmvn.mean"] = torch.linspace(-6, -4, 8)
    state["front_end.cmvn.inverse_std"] = torch.linspace(0.3, 0.5, 8)
    plain = to_plain(config)
    header = {
        "architecture": {
            **{part: plain[part] for part in ("front_end", "encoder", "decoder")},
            "vocab": len(TOKENS),
        },
        "sample_rate": 16000,
        "parameters": sum(t.numel() for n, t in state.items() if ".cmvn." not in n),
        "policy": {"weights": "bf16", "decoder": True},
        "tokenizer": {"kind": "char", "nlsyms": [], "tokens": TOKENS},
        "record": {"updates": 0, "seed": 0},
    }
    tensors = apply_policy(state, PackPolicy(weights="bf16", decoder=True))
    write_packed(FOLDER / f"{NAME}.esp", tensors, header)
    log_probs, lengths = PackedModel.load(FOLDER / f"{NAME}.esp").log_probs(
        waveform(6000), torch.tensor([6000])
    )
    rows = [[round(value, 5) for value in row] for row in log_probs[0].tolist()]
    expected = {"samples": 6000, "frames": lengths.tolist()[0], "log_probs": rows}
    (FOLDER / f"{NAME}.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main()
