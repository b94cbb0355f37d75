"""The packed file: written, read back, read by the safetensors library, and found damaged."""

import hashlib
import json
import os
import struct
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open

from espnet_lite.errors import InputError
from espnet_lite.runtime.bits import pack_integers, unpack_integers
from espnet_lite.runtime.format import (
    FORMAT_VERSION,
    read_checked_header,
    read_header,
    read_packed,
    write_packed,
)

HEADER = {
    "architecture": {"vocab": 3},
    "policy": {"weights": "bf16"},
    "tokenizer": {"tokens": ["<blank>", "ä", "▁a"]},
    "record": {"seed": 7},
}


def some_tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "encoder.b.weight": torch.randn(3, 5, generator=generator).bfloat16(),
        "encoder.a.bias": torch.randn(5, generator=generator),
        "ctc_head.weight": torch.randn(2, 3, generator=generator)[:, ::2],  # not contiguous
        "encoder.steps": torch.tensor(4),
        "encoder.nothing": torch.zeros(0, 3),
    }


@pytest.fixture
def packed(tmp_path):
    path = tmp_path / "model.esp"
    write_packed(path, some_tensors(), HEADER)
    return path


def test_what_was_written_is_read_back(packed):
    header, tensors = read_packed(packed)
    assert tensors.keys() == some_tensors().keys()
    for name, tensor in some_tensors().items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor), name
    assert header == read_header(packed) == read_checked_header(packed)
    assert header["format_version"] == 1  # what older readers read too
    assert {key: header[key] for key in HEADER} == HEADER
    assert header["tensors"]["encoder.b.weight"] == {"encoding": "bf16", "shape": [3, 5]}


def test_integers_of_few_bits_are_read_back_and_are_a_format_of_their_own(tmp_path):
    values = {bits: torch.tensor([[1, -1, 1], [-1, -1, 1]]) for bits in (1, 2, 4, 8)}
    integers = {f"weight_{bits}": pack_integers(values[bits], bits) for bits in values}
    header = {**HEADER, "quantized": {"any": {}}}
    write_packed(tmp_path / "model.esp", {**some_tensors(), **integers}, header)
    header, tensors = read_packed(tmp_path / "model.esp")
    assert header["format_version"] == FORMAT_VERSION == 2
    assert header["tensors"]["weight_2"] == {"encoding": "int2", "shape": [2, 3]}
    for bits, expected in values.items():
        assert torch.equal(unpack_integers(tensors[f"weight_{bits}"]), expected.to(torch.int8))
    with safe_open(tmp_path / "model.esp", framework="pt") as file:
        assert file.get_tensor("weight_1").tolist() == [[0b101], [0b100]]
        assert file.get_tensor("weight_8").tolist() == [[1, -1, 1], [-1, -1, 1]]
    write_packed(tmp_path / "again.esp", tensors, header)
    assert (tmp_path / "again.esp").read_bytes() == (tmp_path / "model.esp").read_bytes()


def test_the_safetensors_library_reads_it(packed):
    with safe_open(packed, framework="pt") as file:
        assert set(file.keys()) == some_tensors().keys()
        assert torch.equal(file.get_tensor("encoder.a.bias"), some_tensors()["encoder.a.bias"])
        assert json.loads(file.metadata()["espnet_lite"])["record"] == {"seed": 7}


def test_a_reader_of_the_documented_layout_alone(packed):
    """docs/packed_format.md by hand: the checksum's place and rule, and one tensor's numbers."""
    content = packed.read_bytes()
    assert content[8:35] == b'{"__metadata__":{"sha256":"'
    blanked = content[:35] + b"0" * 64 + content[99:]
    assert content[35:99].decode() == hashlib.sha256(blanked).hexdigest()
    (json_bytes,) = struct.unpack("<Q", content[:8])
    assert json_bytes % 8 == 0
    entry = json.loads(content[8 : 8 + json_bytes])["encoder.b.weight"]
    start, end = entry["data_offsets"]
    stored = struct.unpack("<15H", content[8 + json_bytes + start : 8 + json_bytes + end])
    values = [struct.unpack("<f", struct.pack("<I", code << 16))[0] for code in stored]
    assert values == some_tensors()["encoder.b.weight"].float().flatten().tolist()


def test_the_same_input_gives_the_same_bytes_in_any_order(packed, tmp_path):
    write_packed(
        tmp_path / "other.esp",
        dict(reversed(some_tensors().items())),
        dict(reversed(HEADER.items())),
    )
    assert (tmp_path / "other.esp").read_bytes() == packed.read_bytes()


@pytest.mark.parametrize("read", [read_checked_header, read_packed])
def test_every_flipped_byte_is_found(packed, read):
    content = packed.read_bytes()
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 1 << (position % 8)
        packed.write_bytes(damaged)
        with pytest.raises(InputError, match=r"model\.esp: (damaged|truncated|not a packed)"):
            read(packed)


def test_reading_only_the_header_of_a_damaged_file_is_an_input_error_or_a_header(packed):
    content = packed.read_bytes()
    (json_bytes,) = struct.unpack("<Q", content[:8])
    for position in range(8 + json_bytes):
        damaged = bytearray(content)
        damaged[position] ^= 1 << (position % 8)
        packed.write_bytes(damaged)
        try:
            assert isinstance(read_header(packed), dict)
        except InputError:
            continue


@pytest.mark.parametrize("read", [read_header, read_packed])
def test_every_truncation_is_found(packed, read):
    content = packed.read_bytes()
    for size in range(len(content)):
        packed.write_bytes(content[:size])
        with pytest.raises(InputError) as caught:
            read(packed)
        kind = "truncated: " if size > 8 else "not a packed model"
        assert f"model.esp: {kind}" in str(caught.value)
        assert f"{size} bytes" in str(caught.value)
    packed.write_bytes(content + b"\0")
    with pytest.raises(InputError, match=f"{len(content) + 1} bytes"):
        read(packed)


@pytest.mark.parametrize("read", [read_header, read_packed])
def test_what_is_no_packed_file(tmp_path, read):
    from safetensors.torch import save_file

    with pytest.raises(InputError, match=r"absent\.esp: no such packed model"):
        read(tmp_path / "absent.esp")
    save_file({"a": torch.zeros(2)}, tmp_path / "weights.safetensors")
    with pytest.raises(InputError, match=r"weights\.safetensors: not a packed model"):
        read(tmp_path / "weights.safetensors")
    torch.save({"a": torch.zeros(2)}, tmp_path / "weights.pt")
    with pytest.raises(InputError, match=r"weights\.pt: not a packed model"):
        read(tmp_path / "weights.pt")


def resealed(content: bytes, old: bytes, new: bytes) -> bytes:
    """Return the file with `old` replaced by `new` of the same size and a checksum that fits."""
    assert len(old) == len(new) and content.count(old) == 1
    content = content.replace(old, new)
    digest = hashlib.sha256(content[:35] + b"0" * 64 + content[99:]).hexdigest()
    return content[:35] + digest.encode() + content[99:]


@pytest.mark.parametrize("read", [read_header, read_packed])
def test_what_a_newer_writer_wrote(packed, read):
    content = packed.read_bytes()
    packed.write_bytes(resealed(content, rb"\"format_version\":1", rb"\"format_version\":9"))
    with pytest.raises(InputError, match="format_version 9, this espnet_lite reads up to 2; upd"):
        read(packed)
    packed.write_bytes(resealed(content, rb"{\"encoding\":\"bf16\"", rb"{\"encoding\":\"w1a8\""))
    with pytest.raises(InputError, match=r"'encoder.b.weight' has the encoding 'w1a8'.*fp32, bf16"):
        read(packed)


@pytest.mark.parametrize("shape", ["[9,8]", "[8,9]", "[-8]", "[2.5]", "[]", "true"])
def test_integers_whose_bytes_are_not_those_of_their_shape(tmp_path, shape):
    path = tmp_path / "model.esp"
    write_packed(path, {"w": pack_integers(torch.ones(8, 8, dtype=torch.int8), 1)}, HEADER)
    old = rb"\"shape\":[8,8]"
    new = (rb"\"shape\":" + shape.encode()).ljust(len(old))
    path.write_bytes(resealed(path.read_bytes(), old, new))
    with pytest.raises(InputError, match=r"damaged: tensor 'w' is stored as U8 \[8, 1\]"):
        read_packed(path)


def test_a_description_that_contradicts_the_stored_tensor(packed):
    old, new = rb"\"bf16\",\"shape\":[3,5]", rb"\"bf16\",\"shape\":[5,3]"
    packed.write_bytes(resealed(packed.read_bytes(), old, new))
    with pytest.raises(
        InputError,
        match=r"'encoder.b.weight' is stored as BF16 \[3, 5\], described as bf16 \[5, 3\]",
    ):
        read_packed(packed)


def test_a_failed_write_leaves_what_was_there(packed):
    before = packed.read_bytes()
    with pytest.raises(ValueError, match=r"tensor x is torch.float16"):
        write_packed(packed, {"x": torch.zeros(2, dtype=torch.float16)}, HEADER)
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_packed(packed, some_tensors(), {"record": {"loss": float("nan")}})
    assert packed.read_bytes() == before
    assert os.listdir(packed.parent) == ["model.esp"]


def test_reading_a_header_imports_neither_torch_nor_numpy(packed):
    code = (
        "import sys; from espnet_lite.runtime.format import read_header; "
        f"print(read_header({str(packed)!r})['record'], "
        "sorted({'torch', 'numpy', 'safetensors'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "{'seed': 7} []\n"
