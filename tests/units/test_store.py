"""The unit store: round trip, the files as the format says, and every fault with its place."""

import hashlib
import json
import struct

import numpy as np
import pytest
import torch

from espnet_lite.errors import InputError
from espnet_lite.features.frame_grid import FrameGrid
from espnet_lite.units.store import UnitStore, write_store

MFCC = FrameGrid(16000, 400, 160)
WAVEFORM = FrameGrid(16000, 400, 320)
LOG_MEL_X4 = FrameGrid(16000, 1360, 640)
SAMPLES = {"b-1": 16000, "a-é": 2000, "a-1": 399, "B-9": 560}
AGAIN = "make the units again: ./run.sh --stage units"


def labels_of(name: str) -> np.ndarray:
    count = MFCC.num_frames(SAMPLES[name])
    return (np.arange(count) * 7 + len(name) + SAMPLES[name]) % 300


def part(*names: str):
    samples = np.array([SAMPLES[name] for name in names])
    labels = np.concatenate([labels_of(name) for name in names]).astype(np.int16)
    return [name.encode() for name in names], samples, MFCC.num_frames(samples), labels


def write(folder, parts):
    return write_store(
        folder,
        parts,
        centroids=torch.arange(600.0).reshape(300, 2),
        grid=MFCC,
        description={"features": {"name": "test"}, "quality": {}},
    )


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "units", [part("b-1", "a-1"), part("B-9", "a-é")])
    return tmp_path / "units"


def test_round_trip(folder):
    store = UnitStore(folder)
    assert store.utterances() == ["B-9", "a-1", "a-é", "b-1"]  # the order of bytes
    assert len(store) == 4 and store.clusters == 300 and store.grid == MFCC
    for name, samples in SAMPLES.items():
        units = store.units_of(name)
        assert units.dtype == np.int16
        np.testing.assert_array_equal(units, labels_of(name))
        assert store.num_samples(name) == samples
    assert len(store.units_of("a-1")) == 0  # shorter than a frame
    assert torch.equal(store.centroids(), torch.arange(600.0).reshape(300, 2))
    assert store.description["features"] == {"name": "test"}


def test_files_are_as_the_format_says(folder):
    lines = (folder / "index").read_text(encoding="utf-8").splitlines()
    assert lines == ["B-9 0 2 560", "a-1 2 0 399", "a-é 2 11 2000", "b-1 13 98 16000"]
    raw = (folder / "units.int16").read_bytes()
    assert list(struct.unpack("<2h", raw[:4])) == labels_of("B-9").tolist()
    assert len(raw) == 2 * 111
    told = json.loads((folder / "units.json").read_text())
    assert [
        told[key] for key in ("clusters", "sample_rate", "window_samples", "shift_samples")
    ] == [*(300, 16000, 400, 160)]
    both = raw + (folder / "centroids.safetensors").read_bytes()
    assert told["units_id"] == hashlib.sha256(both).hexdigest() == UnitStore(folder).identity


def test_parts_do_not_matter(folder, tmp_path):
    write(tmp_path / "other", [part("a-é"), part("a-1", "b-1", "B-9")])
    for name in ("index", "units.int16", "units.json", "centroids.safetensors"):
        assert (tmp_path / "other" / name).read_bytes() == (folder / name).read_bytes()


def test_an_utterance_twice_is_not_written(tmp_path):
    with pytest.raises(InputError, match="utterance 'b-1' stands in two"):
        write(tmp_path / "units", [part("b-1"), part("a-1", "b-1")])
    assert list(tmp_path.iterdir()) == []


def test_only_too_short_ones(tmp_path):
    store = write(tmp_path / "units", [part("a-1")])
    assert len(store.units_of("a-1")) == 0
    targets = store.targets(LOG_MEL_X4)
    assert targets.units_for("a-1", num_samples=399, start_samples=0, part_samples=399).size == 0


def test_targets(folder):
    targets = UnitStore(folder).targets(WAVEFORM)
    all_units = labels_of("b-1")
    whole = targets.units_for("b-1", num_samples=16000, start_samples=0, part_samples=16000)
    assert whole.dtype == np.int64
    np.testing.assert_array_equal(whole, all_units[::2])
    # A crop from 1,600 samples on begins with frame 10 of the labels.
    cut = targets.units_for("b-1", num_samples=16000, start_samples=1600, part_samples=4000)
    np.testing.assert_array_equal(cut, all_units[10 : 10 + 2 * WAVEFORM.num_frames(4000) : 2])
    # Middle of the only frame: 1,360 / 2 = 680 = that of frame 3.
    coarse = UnitStore(folder).targets(LOG_MEL_X4)
    units = coarse.units_for("a-é", num_samples=2000, start_samples=0, part_samples=1360)
    assert units.tolist() == [labels_of("a-é")[3]]


def test_targets_are_clipped_at_the_ends(tmp_path):
    """Labels every 40 ms for a model of 20 ms: the first and last frames see beyond the labels."""
    grid = LOG_MEL_X4
    frames = grid.num_frames(16000)
    store = write_store(
        tmp_path / "units",
        [([b"a"], np.array([16000]), np.array([frames]), np.arange(frames))],
        centroids=torch.zeros(100, 1),
        grid=grid,
        description={},
    )
    units = store.targets(WAVEFORM).units_for(
        "a", num_samples=16000, start_samples=0, part_samples=16000
    )
    assert len(units) == WAVEFORM.num_frames(16000) == 49
    assert units[:4].tolist() == [0, 0, 0, 1]  # middles 200, 520, 840, 1160 of 680, 1320, …
    assert units[-1] == frames - 1


def test_refused_targets(folder, tmp_path):
    targets = UnitStore(folder).targets(WAVEFORM)
    with pytest.raises(InputError) as caught:
        targets.units_for("b-1", num_samples=16001, start_samples=0, part_samples=16001)
    message = str(caught.value)
    assert "utterance 'b-1' has 16001 samples, its units were made of 16000" in message
    assert message.endswith(AGAIN) and str(folder) in message
    with pytest.raises(InputError, match=r"no units of utterance 'c-1'.*--stage units"):
        targets.units_for("c-1", num_samples=1, start_samples=0, part_samples=1)
    with pytest.raises(InputError, match="16000 Hz for a model at 8000 Hz"):
        UnitStore(folder).targets(FrameGrid(8000, 200, 160))
    # Units of frames of 85 ms for a model with frames of 25 ms.
    store = write_store(
        tmp_path / "coarse",
        [([b"a"], np.array([800]), np.array([0]), np.zeros(0, np.int16))],
        centroids=torch.zeros(9, 1),
        grid=LOG_MEL_X4,
        description={},
    )
    with pytest.raises(InputError, match=r"'a' of 800 samples has no unit.*min_seconds to 0\.09"):
        store.targets(WAVEFORM).units_for("a", num_samples=800, start_samples=0, part_samples=800)


def edit(name: str, old: bytes, new: bytes):
    def change(folder):
        raw = (folder / name).read_bytes()
        assert old in raw
        (folder / name).write_bytes(raw.replace(old, new, 1))

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "units.json").unlink(), "units.json: no such file"),
        (lambda f: (f / "index").unlink(), "index: no such file"),
        (lambda f: (f / "units.int16").unlink(), "units.int16: no such file"),
        (
            lambda f: (f / "units.int16").write_bytes((f / "units.int16").read_bytes()[:-2]),
            "units.int16: 220 bytes, but the index has 111 units of 2 bytes, which is 222",
        ),
        (edit("index", b"b-1 13 98 16000", b"b-1 13 97 16000"), "index:4: utterance 'b-1': 97 units, expected 98 of 16000 samples"),
        (edit("index", b"a-1 2 0 399", b"a-1 2 0 400"), "index:2: utterance 'a-1': 0 units, expected 1 of 400 samples"),
        (edit("index", b"2 11 2000", b"3 11 2000"), "index:3: utterance 'a-é': its units do not follow"),
        (edit("index", b"a-1 2", b"c-1 2"), "index:3: utterance 'a-é': it stands twice or out of byte order"),
        (edit("index", b"a-1 2 0 399", b"B-9 2 0 399"), "index:2: utterance 'B-9': it stands twice or out of byte order"),
        (edit("index", b"a-1 2 0 399", b"a-1 2 0"), "index:2: 'a-1 2 0', expected 'utterance offset_frames"),
        (edit("index", b"a-1 2 0 399", b"a-1 2 0 -9"), "index:2: 'a-1 2 0 -9', expected"),
        (edit("units.json", b'"clusters": 300', b'"clusters": "x"'), "units.json: clusters is 'x', expected a positive"),
        (edit("units.json", b"{", b"["), "units.json: not JSON"),
    ],
)  # fmt: skip
def test_faults(folder, change, message):
    change(folder)
    with pytest.raises(InputError) as caught:
        UnitStore(folder)
    assert message in str(caught.value) and str(caught.value).endswith(AGAIN)


def test_a_label_that_is_no_cluster(folder):
    with (folder / "units.int16").open("rb+") as file:
        file.seek(2 * 20)
        file.write(struct.pack("<h", 300))
    store = UnitStore(folder)
    assert len(store.units_of("a-é")) == 11  # another utterance
    with pytest.raises(InputError, match=r"to 300 of utterance 'b-1', expected 0 to 299"):
        store.units_of("b-1")


def test_centroids_that_do_not_fit(folder):
    path = folder / "centroids.safetensors"
    edit("units.json", b'"clusters": 300', b'"clusters": 301')(folder)
    with pytest.raises(InputError, match="300 centroids, expected 301"):
        UnitStore(folder).centroids()
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match="not a file of centroids"):
        UnitStore(folder).centroids()
