"""How much smaller a whole packed file is than the same one in fp32, of the 10 M Transformer as shipped."""

from pathlib import Path

import pytest
import torch

from espnet_lite.config import load_config, to_plain
from espnet_lite.models.asr import AsrModel
from espnet_lite.quantize.calibration import start_activations
from espnet_lite.quantize.config import QuantizeConfig
from espnet_lite.quantize.export import export_model
from espnet_lite.quantize.policy import quantize_modules
from espnet_lite.runtime.format import packed_bytes
from espnet_lite.runtime.pack import PackPolicy, apply_policy
from espnet_lite.tasks.asr import TrainAsrConfig

EGS = Path(__file__).resolve().parents[2] / "egs"
CONFIG = EGS / "mini_librispeech" / "asr1" / "conf" / "train_asr_transformer_10m.yaml"
TOKENS = ["<blank>", "<unk>", *map(str, range(297)), "<sos/eos>"]


def file_bytes(tensors: dict, architecture: dict, quantized: dict) -> int:
    header = {
        "architecture": architecture,
        "sample_rate": 16000,
        "policy": {"name": "x"},
        "tokenizer": {"kind": "char", "nlsyms": [], "tokens": TOKENS},
        "record": {"updates": 0},
        "quantized": quantized,
    }
    return len(packed_bytes(tensors, header))


@pytest.mark.parametrize(
    ("policy", "smallest"), [("w1a8", 16), ("w1a1", 16), ("w2a8", 10), ("w1_58a8", 10)]
)
def test_the_shipped_policies(policy, smallest):
    config = load_config(CONFIG, TrainAsrConfig).model
    assert config.decoder is None  # a CTC-only file on both sides
    model = AsrModel(config, vocab=len(TOKENS)).eval()
    plain = to_plain(config)
    architecture = {
        "front_end": plain["front_end"],
        "encoder": plain["encoder"],
        "decoder": None,
        "vocab": len(TOKENS),
    }
    fp32 = file_bytes(
        apply_policy(model.state_dict(), PackPolicy(weights="fp32")), architecture, {}
    )
    assert fp32 > 4 * 9_000_000
    path = EGS / "an4" / "asr1" / "conf" / f"quantize_{policy}.yaml"
    rules = load_config(path, QuantizeConfig)
    quantize_modules(model, rules.rules, where=path)
    noise = 0.1 * torch.randn(1, 16000, generator=torch.Generator().manual_seed(0))
    start_activations(
        model,
        lambda: model.ctc_log_probs(model.encode(noise, torch.tensor([16000])).encoded),
    )
    exported = export_model(model)
    tensors = apply_policy(exported.tensors, PackPolicy(weights=rules.weights))
    packed = file_bytes(tensors, architecture, exported.quantized)
    assert fp32 / packed >= smallest, f"{fp32} / {packed} bytes"
    # Bits are really packed: the weights of the blocks take what their bits say, to the byte.
    bits = {"int1": 1, "int2": 2}[tensors["encoder.blocks.0.attention.query.weight"].encoding]
    blocks = sum(
        tensor.nbytes
        for name, tensor in tensors.items()
        if name.startswith("encoder.blocks.")
        and name.endswith("weight")
        and ".norm" not in name
        and "_norm" not in name
    )
    weights = 12 * (4 * 256 * 256 + 2 * 256 * 1024)
    assert blocks == weights * bits // 8
