"""Writes packed_v2_integers.esp and .json: run once; a released golden file never changes.

    python tests/golden/make_packed_v2.py

One recognizer with every encoding and every quantizer of version 2: a Conformer whose attention has one
bit, its feed-forward modules ternary weights and activations of 8 bits by frame, its convolutions weights of 4
and activations of 4 bits; subsampling and head have weights of 8 bits. The JSON holds what a reader must get:
log-probabilities for the waveform of make_packed.py.
"""

import json
from pathlib import Path

import torch

from espnet_lite.config import from_plain, to_plain
from espnet_lite.models.asr import AsrConfig, AsrModel
from espnet_lite.quantize.calibration import start_activations
from espnet_lite.quantize.config import QuantizeConfig
from espnet_lite.quantize.export import export_model
from espnet_lite.quantize.policy import quantize_modules
from espnet_lite.runtime.format import write_packed
from espnet_lite.runtime.packed_model import PackedModel

FOLDER = Path(__file__).resolve().parent
NAME = "packed_v2_integers"
TOKENS = ["<blank>", "<unk>", "<space>", "a", "é", "<sos/eos>"]
MODEL = {
    "front_end": {"name": "log_mel", "num_mels": 8, "channels": 2},
    "encoder": {
        "name": "conformer",
        "dim": 8,
        "layers": 1,
        "heads": 2,
        "feed_forward": 16,
        "kernel": 3,
    },
}
RULES = [
    {"kinds": ["attention_linear", "attention_matmul"], "weight_bits": 1, "activation_bits": 1},
    {"kinds": ["feed_forward"], "weight_bits": 1.58, "activation_bits": 8},
    {"kinds": ["conv_pointwise", "conv_depthwise"], "weight_bits": 4, "activation_bits": 4},
    {"kinds": ["subsampling", "head"], "weight_bits": 8},
]


def waveform(samples: int) -> torch.Tensor:
    """Return a (1, samples) saw of period 160 with a slower square: exact in any language."""
    step = torch.arange(samples)
    return ((step % 160) / 400 - 0.2 + 0.1 * (step // 1000 % 2))[None].float()


def main() -> None:
    torch.manual_seed(0)
    config = from_plain(AsrConfig, MODEL)
    model = AsrModel(config, vocab=len(TOKENS)).eval()
    policy = from_plain(QuantizeConfig, {"weights": "fp32", "rules": RULES})
    quantize_modules(model, policy.rules, where="RULES")
    audio = waveform(6000), torch.tensor([6000])
    start_activations(model, lambda: model.ctc_log_probs(model.encode(*audio).encoded))
    exported = export_model(model)
    plain = to_plain(config)
    header = {
        "architecture": {
            "front_end": plain["front_end"],
            "encoder": plain["encoder"],
            "decoder": None,
            "vocab": len(TOKENS),
        },
        "sample_rate": 16000,
        "parameters": 0,
        "policy": {"name": "golden", "weights": "fp32", "decoder": False, "rules": RULES},
        "quantized": exported.quantized,
        "tokenizer": {"kind": "char", "nlsyms": [], "tokens": TOKENS},
        "record": {"updates": 0, "seed": 0},
    }
    write_packed(FOLDER / f"{NAME}.esp", exported.tensors, header)
    log_probs, lengths = PackedModel.load(FOLDER / f"{NAME}.esp").log_probs(*audio)
    rows = [[round(value, 5) for value in row] for row in log_probs[0].tolist()]
    expected = {"samples": 6000, "frames": lengths.tolist()[0], "log_probs": rows}
    (FOLDER / f"{NAME}.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main()
