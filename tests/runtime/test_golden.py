"""Files of released formats keep loading and keep meaning the same."""

import json
from pathlib import Path

import pytest
import torch

from espnet_lite.runtime.format import read_header, read_packed, write_packed
from espnet_lite.runtime.packed_model import PackedModel

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


def waveform(samples: int) -> torch.Tensor:
    """Return the waveform of tests/golden/make_packed.py."""
    step = torch.arange(samples)
    return ((step % 160) / 400 - 0.2 + 0.1 * (step // 1000 % 2))[None].float()


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("packed_*.esp")), ids=lambda path: path.stem)
def test_a_stored_file_gives_its_log_probabilities(path):
    expected = json.loads(path.with_suffix(".json").read_text())
    samples = expected["samples"]
    model = PackedModel.load(path)
    log_probs, frames = model.log_probs(waveform(samples), torch.tensor([samples]))
    assert frames.tolist() == [expected["frames"]]
    torch.testing.assert_close(log_probs[0], torch.tensor(expected["log_probs"]), atol=1e-4, rtol=0)


def test_version_1():
    header, tensors = read_packed(GOLDEN / "packed_v1_bf16.esp")
    assert header == read_header(GOLDEN / "packed_v1_bf16.esp")
    assert header["format_version"] == 1
    assert header["tokenizer"]["tokens"][4] == "é"
    assert tensors["encoder.norm.weight"].dtype == torch.float32
    assert tensors["ctc_head.weight"].dtype == torch.bfloat16
    assert any(name.startswith("decoder.") for name in tensors)


def test_version_2():
    header, tensors = read_packed(GOLDEN / "packed_v2_integers.esp")
    assert header == read_header(GOLDEN / "packed_v2_integers.esp")
    assert header["format_version"] == 2
    encodings = {entry["encoding"] for entry in header["tensors"].values()}
    assert encodings == {"fp32", "int1", "int2", "int4", "int8"}
    query = header["quantized"]["encoder.blocks.0.attention.query"]
    assert query["input"]["quantizer"] == "bit" and query["weight_bits"] == 1
    assert tensors["encoder.blocks.0.attention.query.weight"].stored.shape == (8, 1)


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("packed_*.esp")), ids=lambda path: path.stem)
def test_writing_what_was_read_gives_the_stored_bytes(tmp_path, path):
    """The writer of today makes, from the same content, the file of then."""
    stored = path
    header, tensors = read_packed(stored)
    write_packed(tmp_path / "again.esp", tensors, header)
    assert (tmp_path / "again.esp").read_bytes() == stored.read_bytes()
