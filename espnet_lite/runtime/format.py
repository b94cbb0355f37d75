"""The packed model file `model.esp`: one complete recognizer in one safetensors file.

Layout (docs/packed_format.md has the same, longer; all numbers little-endian):

    bytes 0..7      uint64 N, the length of the JSON that follows, padding included
    bytes 8..8+N    JSON, UTF-8, padded at its end with spaces so that 8+N divides by 8
    the rest        tensor bytes, row-major, without gaps

The JSON is a safetensors header and begins with exactly `{"__metadata__":{"sha256":"`, so the 64
hex digits of the checksum always stand at bytes 35..98. They are the SHA-256 of the whole file with
those 64 bytes read as ASCII `0`. `__metadata__["espnet_lite"]` is a JSON text again: the header

    {format_version, architecture, policy, quantized, tokenizer, record,
     tensors: {name: {encoding, shape}}}

`encoding` says how to get the values of a tensor from the stored bytes (`shape` is the shape of
those values): `fp32`, `bf16`, `int64` and `int32` are the plain numbers, `int1`, `int2`, `int4` and `int8`
integers of so many bits (runtime/bits.py). `quantized` says what multiplies integers
(runtime/quantized.py). A reader refuses an encoding it does not know. The same input gives the same
bytes.
"""

import hashlib
import json
import math
import mmap
import struct
from collections.abc import Sequence
from pathlib import Path

from espnet_lite.errors import InputError
from espnet_lite.files import atomic_path

FORMAT_VERSION = 2  # raised when an older reader would misread a file, not for a new encoding
_PLAIN_VERSION = 1  # written where nothing is quantized: older readers still read those files
MAGIC = b'{"__metadata__":{"sha256":"'
_DIGEST = slice(8 + len(MAGIC), 8 + len(MAGIC) + 64)  # where the checksum's hex digits stand
_ZEROS = b"0" * 64
_ALIGNMENT_BYTES = 8  # of the first tensor; larger elements come first, so every tensor is aligned
_LARGEST_JSON_BYTES = 100_000_000  # safetensors' own limit
ENCODINGS = {  # encoding -> safetensors dtype
    "fp32": "F32",
    "bf16": "BF16",
    "int64": "I64",
    "int32": "I32",
    "int1": "U8",
    "int2": "U8",
    "int4": "U8",
    "int8": "I8",
}
ELEMENT_BYTES = {"F32": 4, "BF16": 2, "I64": 8, "I32": 4, "U8": 1, "I8": 1}  # of ENCODINGS' dtypes
INTEGER_BITS = {"int1": 1, "int2": 2, "int4": 4, "int8": 8}  # encoding -> bits of a value


def stored_shape(encoding: str, shape: Sequence[int]) -> list[int]:
    """Return the shape of what is stored of values of `shape`: (rows, bytes of a row) where several
    values share a byte, else the same."""
    bits = INTEGER_BITS.get(encoding, 8)
    return list(shape) if bits == 8 else [shape[0], -(-math.prod(shape[1:]) * bits // 8)]


def read_header(path: Path | str) -> dict:
    """Return the header of a packed file; reads no tensor and imports neither torch nor numpy.

    The size of the file is compared with what its JSON announces; the checksum is not (that needs
    every byte: `read_checked_header`, `read_packed`).

    Raises:
        InputError: missing, not a packed file, truncated or too long, newer than this reader.
    """
    path = _existing(path)
    with path.open("rb") as file:
        start = file.read(8 + len(MAGIC))
        json_bytes = _json_bytes(path, start)
        rest = file.read(max(0, 8 + json_bytes - len(start)))
    layout = _parse_layout(path, start[8:] + rest, json_bytes, path.stat().st_size)
    return _parse_header(path, layout)


def read_checked_header(path: Path | str) -> dict:
    """Return what `read_header` does, after reading the whole file and comparing its checksum."""
    path = _existing(path)
    with _mapped(path) as content, memoryview(content) as view:
        return _check(path, view)[0]


def mappings_of(header: dict, *keys: str, where: Path | str) -> dict[str, dict]:
    """Return these parts of a header, which the format itself does not ask for.

    Raises:
        InputError: one is missing or no mapping, named with `where`.
    """
    for key in keys:
        if not isinstance(header.get(key), dict):
            found = str(header.get(key))[:40]
            raise _damaged(Path(where), f"'{key}' of its header is {found}, expected a mapping")
    return {key: header[key] for key in keys}


def read_packed(path: Path | str) -> tuple[dict, dict]:
    """Return `(header, {name: tensor})` on the CPU: the tensors as stored, fp32, bf16, int64 or int32;
    integers of few bits as `PackedIntegers`.

    The file is mapped, not read: its pages are those of the system's cache, which every process that
    has the model shares and which are given back where memory is short. A tensor that is written to gets
    pages of its own; the file never changes. The checksum has been compared with every byte when
    this returns.

    Raises:
        InputError: what `read_header` finds, or a checksum that does not match.
    """
    import torch

    from espnet_lite.runtime.bits import PackedIntegers

    path = _existing(path)
    content = _mapped(path)
    with memoryview(content) as view:
        header, layout = _check(path, view)
        first = 8 + _json_bytes(path, bytes(view[: 8 + len(MAGIC)]))
    types = {
        "F32": torch.float32,
        "BF16": torch.bfloat16,
        "I64": torch.int64,
        "I32": torch.int32,
        "U8": torch.uint8,
        "I8": torch.int8,
    }
    tensors = {}
    for name, entry in header["tensors"].items():
        stored, dtype = layout[name], types[layout[name]["dtype"]]
        count, offset = math.prod(stored["shape"]), first + stored["data_offsets"][0]
        flat = torch.empty(0, dtype=dtype)
        if count:
            flat = torch.frombuffer(content, dtype=dtype, count=count, offset=offset)
        tensors[name] = flat.view(stored["shape"])
        if entry["encoding"] in INTEGER_BITS:
            shape = tuple(entry["shape"])
            tensors[name] = PackedIntegers(tensors[name], entry["encoding"], shape)
    return header, tensors


def write_packed(path: Path | str, tensors: dict, header: dict) -> None:
    """Write `packed_bytes(tensors, header)` to `path`, whole or not at all.

    Raises:
        ValueError: what `packed_bytes` raises.
        InputError: the disk is full or the folder cannot be written.
    """
    content = packed_bytes(tensors, header)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def packed_bytes(tensors: dict, header: dict) -> bytearray:
    """Return the packed file of `tensors`: name -> torch tensor (fp32, bf16, int64 or int32) or
    `PackedIntegers`.

    `format_version` and `tensors` of the header are set here; the rest is kept as given. JSON keys
    are sorted, so the same input gives the same bytes.

    Raises:
        ValueError: a dtype without an encoding, or a header that JSON cannot hold (NaN).
    """
    described, stored = {}, {}
    for name, tensor in tensors.items():
        encoding, shape, stored[name] = _encoded(name, tensor)
        described[name] = {"encoding": encoding, "shape": list(shape)}
    # Larger elements first, then by name: every tensor starts at a multiple of its element size.
    order = sorted(stored, key=lambda name: (-stored[name].element_size(), name))
    layout, end = {}, 0
    for name in order:
        start, end = end, end + stored[name].numel() * stored[name].element_size()
        layout[name] = {
            "dtype": ENCODINGS[described[name]["encoding"]],
            "shape": list(stored[name].shape),
            "data_offsets": [start, end],
        }
    version = FORMAT_VERSION if header.get("quantized") else _PLAIN_VERSION
    header = {**header, "format_version": version, "tensors": described}
    metadata = {"sha256": _ZEROS.decode(), "espnet_lite": _dump_json(header)}
    # Not by _dump_json: "sha256" must come first, the tensors in the order of their bytes.
    json_text = json.dumps(
        {"__metadata__": metadata, **layout}, separators=(",", ":"), ensure_ascii=False
    ).encode("utf-8")
    json_text += b" " * (-len(json_text) % _ALIGNMENT_BYTES)
    content = bytearray(struct.pack("<Q", len(json_text)) + json_text)
    for name in order:
        content += _raw_bytes(stored[name])
    content[_DIGEST] = _checksum(content).encode("ascii")
    return content


def _encoded(name: str, tensor) -> tuple:
    """Return encoding, shape of the values, and the tensor that is stored."""
    import torch

    from espnet_lite.runtime.bits import PackedIntegers

    if isinstance(tensor, PackedIntegers):
        return tensor.encoding, tensor.shape, tensor.stored
    encodings = {
        torch.float32: "fp32",
        torch.bfloat16: "bf16",
        torch.int64: "int64",
        torch.int32: "int32",
    }
    if tensor.dtype not in encodings:
        raise ValueError(f"tensor {name} is {tensor.dtype}, expected one of {list(encodings)}")
    return encodings[tensor.dtype], tensor.shape, tensor


def _raw_bytes(tensor) -> bytes:
    import torch

    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes()


def _dump_json(value: object) -> str:
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def file_sha256(path: Path | str) -> str:
    """Return the SHA-256 of a file's bytes, as `sha256sum` prints it."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _checksum(content: bytearray | memoryview) -> str:
    """SHA-256 of the file with the checksum's own digits read as zeros."""
    digest = hashlib.sha256(memoryview(content)[: _DIGEST.start])
    digest.update(_ZEROS)
    digest.update(memoryview(content)[_DIGEST.stop :])
    return digest.hexdigest()


def _existing(path: Path | str) -> Path:
    path = Path(path)
    if not path.is_file():
        raise InputError("no such packed model", where=path, fix="write one: pack_model --output")
    return path


def _mapped(path: Path) -> mmap.mmap:
    """Return the bytes of a file that begins as a packed one: its pages, until they are written to."""
    with path.open("rb") as file:
        _json_bytes(path, file.read(8 + len(MAGIC)))  # an empty file has nothing to map
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)


def _check(path: Path, content: memoryview) -> tuple[dict, dict]:
    """Return the header and the layout of a whole file whose sizes and checksum are right."""
    json_bytes = _json_bytes(path, bytes(content[: 8 + len(MAGIC)]))
    json_text = bytes(content[8 : 8 + json_bytes])
    layout = _parse_layout(path, json_text, json_bytes, len(content))
    found, stored = _checksum(content), bytes(content[_DIGEST]).decode("ascii", "replace")
    if found != stored:
        raise _damaged(path, f"its bytes have SHA-256 {found[:12]}…, it says {stored[:12]}…")
    header = _parse_header(path, layout)
    _check_places(path, layout)
    return header, layout


def _check_places(path: Path, layout: dict) -> None:
    """Make sure that each tensor has the bytes of its shape, at a multiple of its element's size, and
    none lies in another or beyond a gap."""
    places = []
    for name, entry in layout.items():
        if name == "__metadata__":
            continue
        place = entry["data_offsets"]
        if not (isinstance(place, list) and [type(number) for number in place] == [int, int]):
            raise _damaged(path, f"tensor '{name}' has the bytes {str(place)[:40]}")
        if not all(type(size) is int for size in entry["shape"]):  # true is 1, and no size
            raise _damaged(path, f"tensor '{name}' has the shape {str(entry['shape'])[:40]}")
        places.append((*place, name))
    end = 0
    for begin, behind, name in sorted(places):
        element = ELEMENT_BYTES[layout[name]["dtype"]]
        size = element * math.prod(layout[name]["shape"])
        if (begin, behind) != (end, end + size) or begin % element:
            what = (
                f"tensor '{name}' has the bytes {begin} to {behind}, expected {end} to {end + size}"
            )
            raise _damaged(path, what)
        end = behind


def _not_packed(path: Path, why: str) -> InputError:
    fix = "give a file that pack_model wrote (*.esp)"
    return InputError(f"not a packed model ({why})", where=path, fix=fix)


def _damaged(path: Path, why: object) -> InputError:
    return InputError(f"damaged: {why}", where=path, fix="copy or pack it again")


def _told(error: Exception) -> str:
    """Return an exception in a few words; that of bytes that are no text would hold them all."""
    return f"{type(error).__name__}: {error}"[:100]


def _truncated(path: Path, found: int, expected: str) -> InputError:
    fix = "copy or pack it again"
    return InputError(f"truncated: {found} bytes of {expected}", where=path, fix=fix)


def _json_bytes(path: Path, start: bytes) -> int:
    """Return the length of the JSON, from the first bytes of the file."""
    if len(start) <= 8:
        raise _not_packed(path, f"{len(start)} bytes")
    if len(start) < 8 + len(MAGIC) and MAGIC.startswith(start[8:]):
        raise _truncated(path, len(start), "a JSON header that begins so")
    if start[8:] != MAGIC:
        raise _not_packed(path, "another beginning")
    (length,) = struct.unpack("<Q", start[:8])
    if length > _LARGEST_JSON_BYTES:
        raise _not_packed(path, f"a JSON header of {length} bytes")
    return length


def _parse_layout(path: Path, json_text: bytes, json_bytes: int, file_bytes: int) -> dict:
    """Return the safetensors header after comparing its sizes with the file's."""
    if file_bytes < 8 + json_bytes:
        raise _truncated(path, file_bytes, f"at least {8 + json_bytes}")
    try:
        layout = json.loads(json_text.decode("utf-8"))
        entries = [value for name, value in layout.items() if name != "__metadata__"]
        expected = 8 + json_bytes + max((entry["data_offsets"][1] for entry in entries), default=0)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(path, f"its JSON header cannot be read ({_told(error)})") from error
    if file_bytes < expected:
        raise _truncated(path, file_bytes, str(expected))
    if file_bytes > expected:
        raise _damaged(path, f"{file_bytes} bytes, its header announces {expected}")
    return layout


def _expected_shape(encoding: str, shape: object) -> list[int] | None:
    """Return `stored_shape` of what a header gives as a shape; None where it is none."""
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        return None
    if not shape and encoding in INTEGER_BITS:  # no rows
        return None
    return stored_shape(encoding, shape)


def _parse_header(path: Path, layout: dict) -> dict:
    """Return the espnet_lite header after checking its version and its list of tensors."""
    try:
        header = json.loads(layout["__metadata__"]["espnet_lite"])
        version = header["format_version"]
        described = {
            name: (entry["encoding"], entry["shape"]) for name, entry in header["tensors"].items()
        }
        stored = {
            name: (entry["dtype"], entry["shape"], entry["data_offsets"])
            for name, entry in layout.items()
            if name != "__metadata__"
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(path, f"its espnet_lite header cannot be read ({_told(error)})") from error
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise InputError(
            f"format_version {version}, this espnet_lite reads up to {FORMAT_VERSION}",
            where=path,
            fix="update espnet_lite, or pack the model again with this version",
        )
    if described.keys() != stored.keys():
        odd = sorted(described.keys() ^ stored.keys())
        raise _damaged(path, f"tensor '{odd[0]}' is only in one of its two lists of tensors")
    for name, (encoding, shape) in described.items():
        if not isinstance(encoding, str) or encoding not in ENCODINGS:
            raise InputError(
                f"tensor '{name}' has the encoding '{encoding}', "
                f"this espnet_lite reads {', '.join(ENCODINGS)}",
                where=path,
                fix="update espnet_lite",
            )
        dtype, found, _ = stored[name]
        if dtype != ENCODINGS[encoding] or found != _expected_shape(encoding, shape):
            raise _damaged(
                path,
                f"tensor '{name}' is stored as {dtype} {found}, described as {encoding} {shape}",
            )
    return header
