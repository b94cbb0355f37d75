"""Packed files of few bits that were damaged, or made by hand to mislead: one clear line each, no crash."""

import contextlib
import copy
import hashlib
import json
import random
import struct

import pytest
import torch

from espnet_lite.errors import InputError
from espnet_lite.quantize.export import export_model
from espnet_lite.runtime.bits import PackedIntegers
from espnet_lite.runtime.format import packed_bytes, read_header, read_packed
from espnet_lite.runtime.packed_model import PackedModel

VALUES = [None, True, -1, 0, 3, 10**9, 10**30, 0.5, -0.0, "", "x", "int1", [], [1], {}, {"a": 1}]


@pytest.fixture(scope="module")
def content(small_models) -> bytes:
    """A file of every encoding: one-bit blocks with relative attention, subsampling and head of 8."""
    model = small_models.quantized_model("conformer", "w1a1")
    exported = export_model(model)
    header = {**small_models.header_of(model), "quantized": exported.quantized}
    return bytes(packed_bytes(exported.tensors, header))


def refused_or_whole(path) -> bool:
    """Return whether the file was refused, in one line that names it; anything else but a model fails."""
    try:
        PackedModel.load(path)
    except InputError as error:
        line = str(error)
        assert path.name in line and "\n" not in line and len(line) < 400, line
        return True
    return False


def resealed(header: dict, layout: dict, data: bytes) -> bytes:
    """Return a file of these parts with a checksum that fits."""
    return sealed(json.dumps(header, separators=(",", ":")), json.dumps(layout), data)


def sealed(header_text: str, layout_text: str, data: bytes) -> bytes:
    metadata = {"sha256": "0" * 64, "espnet_lite": header_text}
    text = json.dumps({"__metadata__": metadata}, separators=(",", ":"))
    text = f"{text[:-1]}, {layout_text[1:]}".encode()
    text += b" " * (-len(text) % 8)
    content = struct.pack("<Q", len(text)) + text + data
    digest = hashlib.sha256(content).hexdigest().encode()
    return content[:35] + digest + content[99:]


def parts_of(content: bytes) -> tuple[dict, dict, bytes]:
    (size,) = struct.unpack("<Q", content[:8])
    layout = json.loads(content[8 : 8 + size])
    header = json.loads(layout.pop("__metadata__")["espnet_lite"])
    return header, layout, content[8 + size :]


def places(value, path=()):
    """Yield the path of every value in nested dicts and lists."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        yield (*path, key)
        if isinstance(inner, (dict, list)):
            yield from places(inner, (*path, key))


def any_place(value, draw: random.Random):
    """Return the path of some value; each top-level key is as likely."""
    key = draw.choice(list(value))
    below = list(places(value[key], (key,))) if isinstance(value[key], (dict, list)) else []
    return draw.choice([(key,), *below]) if draw.random() < 0.9 else (key,)


def changed(value, path, draw: random.Random):
    """Return a copy with the value at `path` replaced, left out or renamed."""
    value = copy.deepcopy(value)
    holder = value
    for key in path[:-1]:
        holder = holder[key]
    choice = draw.random()
    if isinstance(holder, list) or choice < 0.6:
        holder[path[-1]] = draw.choice(VALUES)
    elif choice < 0.8:
        del holder[path[-1]]
    else:
        holder[f"{path[-1]}x"] = holder.pop(path[-1])
    return value


def fuzz(content: bytes, folder, *, rounds: int, seed: int) -> None:
    draw = random.Random(seed)
    path = folder / "damaged.esp"
    header, layout, data = parts_of(content)
    for number in range(rounds):
        kind = number % 4
        if kind == 0:
            damaged = bytearray(content)
            damaged[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        elif kind == 1:
            damaged = content[: draw.randrange(len(content))]
        elif kind == 2:
            damaged = resealed(changed(header, any_place(header, draw), draw), layout, data)
        else:
            damaged = resealed(header, changed(layout, any_place(layout, draw), draw), data)
        path.write_bytes(damaged)
        is_refused = refused_or_whole(path)
        assert is_refused or kind in (2, 3), "a damaged file was read"


def test_some_hundred_damages(content, tmp_path):
    fuzz(content, tmp_path, rounds=240, seed=1)


@pytest.mark.slow
def test_five_thousand_damages(content, tmp_path):
    fuzz(content, tmp_path, rounds=5000, seed=2)


def load_with(content: bytes, tmp_path, *, header=None, tensors=None) -> None:
    """Load the file after `header(header)` and `tensors(tensors)` changed their arguments."""
    path = tmp_path / "m.esp"
    path.write_bytes(content)
    found_header, found = read_packed(path)
    if header is not None:
        header(found_header)
    if tensors is not None:
        tensors(found)
    PackedModel.from_parts(found_header, found, where=path)


LAYER = "encoder.blocks.0.convolution.pointwise_in"
DOT = "encoder.blocks.0.attention.dot_product"


def set_to(name: str, value):
    def change(tensors):
        tensors[name] = tensors[name].clone().fill_(value)

    return change


def form(name: str, **changes):
    return lambda header: header["quantized"][name].update(changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"tensors": set_to(f"{LAYER}.weight_scale", -1.0)},
            r"weight_scale' is not finite and at least 0",
        ),
        (
            {"tensors": set_to(f"{LAYER}.weight_scale", torch.nan)},
            r"weight_scale' is not finite and",
        ),
        (
            {"tensors": set_to("ctc_head.weight_scale", 0.0)},
            r"head.weight_scale' is not finite and ab",
        ),
        ({"tensors": set_to(f"{LAYER}.input.scale", torch.nan)}, r"input.scale' is not finite and"),
        ({"tensors": set_to(f"{DOT}.query.offset", torch.inf)}, r"query.offset' is not finite"),
        (
            {"tensors": set_to(f"{DOT}.value.scale", -1.0)},
            r"value.scale' is not finite and above 0",
        ),
        ({"header": form(LAYER, weight_bits=2)}, r"pointwise_in.weight' is int1, expected int2"),
        ({"header": form(LAYER, weight_bits=32)}, r"pointwise_in.weight_scale' is not in the arch"),
        ({"header": form(LAYER, weight_bits=0)}, r"weight_bits 0 are not between 1 and 32"),
        ({"header": form(LAYER, input=None)}, r"input.offset' is not in the architecture"),
        ({"header": form(LAYER, bits=1)}, r"unknown key 'bits' \(known: weight"),
        ({"header": form(DOT, operands=None)}, r"dot_product': operands: expected a mapping"),
        (
            {"header": lambda header: header["quantized"].update({"encoder.no": {}})},
            r"m\.esp: quantized module 'encoder.no': is not in the architecture",
        ),
        (
            {"header": lambda header: header["quantized"].update({"encoder.norm": {}})},
            r"'encoder.norm': LayerNorm cannot multiply integers",
        ),
        (
            {"header": lambda header: header["quantized"].pop(LAYER)},
            r"pointwise_in.input.offset' is not in the architecture",
        ),
    ],
)
def test_what_contradicts_itself(content, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        load_with(content, tmp_path, **changes)


def test_a_dynamic_scale_where_it_does_not_leave_the_sum(content, tmp_path):
    absmax = {"quantizer": "absmax", "bits": 8}
    depthwise = "encoder.blocks.0.convolution.depthwise"
    with pytest.raises(InputError, match="'absmax' before a convolution, expected a static one"):
        load_with(content, tmp_path, header=form(depthwise, input=absmax))

    def value(header):
        header["quantized"][DOT]["operands"]["value"] = absmax

    with pytest.raises(InputError, match=r"value.quantizer 'absmax', expected a static one"):
        load_with(content, tmp_path, header=value)


@pytest.mark.parametrize("depth", [*range(920, 1000, 8), 100_000])
@pytest.mark.parametrize("in_header", [False, True])
def test_lists_in_lists(content, tmp_path, in_header, depth):
    """About as many as Python's stack holds, and far more."""
    header, layout, data = parts_of(content)
    lists = "[" * depth + "]" * depth
    header_text, layout_text = json.dumps({**header, "architecture": 0}), json.dumps(layout)
    if in_header:
        header_text = header_text.replace('"architecture": 0', f'"architecture": {lists}')
    else:
        layout_text = f'{{"lists": {lists}, {layout_text[1:]}'
    path = tmp_path / "lists.esp"
    path.write_bytes(sealed(header_text, layout_text, data))
    assert refused_or_whole(path)
    with contextlib.suppress(InputError):
        read_header(path)


def test_integers_in_the_place_of_floats(content, tmp_path):
    def change(tensors):
        old = tensors["encoder.norm.weight"]
        tensors["encoder.norm.weight"] = PackedIntegers(
            old.to(torch.int8), "int8", tuple(old.shape)
        )

    with pytest.raises(InputError, match=r"norm.weight' is int8, expected floating point"):
        load_with(content, tmp_path, tensors=change)
