"""Estimates by bits, by hand."""

from espnet_lite.profile.bit_operations import FactorBits, bit_operations, factor_bits

HEADER = {
    "tensors": {
        "ctc_head.weight": {"encoding": "bf16", "shape": [5, 4]},
        "ctc_head.bias": {"encoding": "fp32", "shape": [5]},
        "a.weight": {"encoding": "int2", "shape": [3, 4]},
        "a.weight_scale": {"encoding": "fp32", "shape": [3]},
        "norm.weight": {"encoding": "fp32", "shape": [4]},
    },
    "quantized": {
        "a": {"weight_bits": 1.58, "activation_bits": 8},
        "dot": {"activation_bits": 8},
        "b": {"weight_bits": 1, "activation_bits": 1},
    },
}


def test_bits_of_a_header():
    assert factor_bits(HEADER) == {
        "ctc_head": FactorBits(16, 32),
        "norm": FactorBits(32, 32),
        "a": FactorBits(1.58, 8),
        "dot": FactorBits(8, 8),
        "b": FactorBits(1, 1),
    }
    assert factor_bits({"tensors": {}}) == {}


def test_by_hand():
    macs = {"ctc_head": 10, "a": 100, "dot": 7, "b": 3, "front_end.fbank": 2}
    assert bit_operations(macs, factor_bits(HEADER)) == {
        "bops": round(10 * 16 * 32 + 100 * 1.58 * 8 + 7 * 64 + 3 + 2 * 1024),
        "weighted_macs": round(10 / 2 + 100 * 1.58 / 32 + 7 / 4 + 3 / 32 + 2),
    }
    assert bit_operations({"x": 5}, {}) == {"bops": 5 * 1024, "weighted_macs": 5}
