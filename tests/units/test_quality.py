"""PNMI and purities: hand-worked, by definition in a double loop, and at their ends."""

import math

import numpy as np
import pytest
import torch

from espnet_lite.errors import InputError
from espnet_lite.features.frame_grid import FrameGrid
from espnet_lite.units.quality import count_phones, count_segments, phones_at, quality_of
from espnet_lite.units.store import write_store

GRID = FrameGrid(1000, 20, 10)  # frames of 20 ms every 10 ms; middles at 10, 20, 30 ms, …


def test_hand_worked():
    """Two phones of one bit; unit 0 tells phone 0, unit 1 tells nothing."""
    quality = quality_of(np.array([[4, 2, 0], [0, 2, 0], [0, 0, 0]]))
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    left = 0.5 * math.log(2)  # in unit 1, which half of the frames have
    assert quality.pnmi == pytest.approx((entropy - left) / entropy)
    assert quality.phone_purity == pytest.approx((4 + 2) / 8)
    assert quality.cluster_purity == pytest.approx((4 + 2) / 8)
    assert (quality.frames, quality.phones, quality.units) == (8, 2, 2)


def test_purities_differ():
    quality = quality_of(np.array([[3, 3, 3], [0, 0, 1]]))
    assert quality.phone_purity == pytest.approx(9 / 10)
    assert quality.cluster_purity == pytest.approx(4 / 10)


def test_by_definition():
    counts = np.random.default_rng(0).integers(0, 9, size=(6, 11))
    total = counts.sum()
    p, u = counts.sum(axis=1) / total, counts.sum(axis=0) / total
    information = sum(
        counts[i, j] / total * math.log(counts[i, j] / total / (p[i] * u[j]))
        for i in range(6)
        for j in range(11)
        if counts[i, j]
    )
    entropy = -sum(x * math.log(x) for x in p if x)
    assert quality_of(counts).pnmi == pytest.approx(information / entropy)


def test_ends():
    assert quality_of(np.diag([5, 9, 2])).pnmi == pytest.approx(1.0)
    independent = np.outer([1, 2, 3], [4, 5])
    assert quality_of(independent).pnmi == pytest.approx(0.0, abs=1e-12)
    assert quality_of(np.array([[3, 4]])).pnmi == 0.0  # one phone: nothing to know
    with pytest.raises(InputError, match="no frame"):
        quality_of(np.zeros((2, 2), dtype=int))


def test_phones_of_frames():
    numbers = {"sil": 0}
    intervals = [(0.0, 0.02, "AH0"), (0.02, 0.04, "B"), (0.05, 0.07, "AH1")]
    phones = phones_at(intervals, GRID, 8, numbers=numbers)
    assert numbers == {"sil": 0, "AH": 1, "B": 2}
    # Middles 10 | 20, 30 | 40 in the gap | 50, 60 | 70, 80 behind the last.
    assert phones.tolist() == [1, 2, 2, 0, 1, 1, 0, 0]
    assert phones_at([], GRID, 3, numbers=numbers).tolist() == [0, 0, 0]


def store_of(folder, units: dict[str, list[int]]):
    ids = [name.encode() for name in units]
    frames = np.array([len(row) for row in units.values()])
    labels = np.array([unit for row in units.values() for unit in row])
    return write_store(
        folder,
        [(ids, frames * 10 + 10 * (frames > 0), frames, labels)],
        centroids=torch.zeros(4, 2),
        grid=GRID,
        description={},
    )


def test_counts_of_a_store(tmp_path):
    store = store_of(tmp_path / "units", {"a": [0, 0, 1, 3], "b": [1, 1], "c": []})
    alignments = {
        "a": [(0.0, 0.025, "S"), (0.025, 0.05, "sp")],
        "b": [(0.0, 0.015, "spn"), (0.015, 0.03, "T")],
        "c": [],
    }
    counted = count_phones(store, alignments)
    assert counted.phones == ["sil", "S", "T"]
    assert counted.counts.tolist() == [[0, 2, 0, 1], [2, 0, 0, 0], [0, 1, 0, 0]]
    assert counted.with_silence() == quality_of(counted.counts)
    speech = counted.of_speech()
    assert speech is not None and (speech.frames, speech.pnmi) == (3, pytest.approx(1.0))
    silent = count_phones(store, {"b": [(0.0, 0.03, "")]})
    assert silent.of_speech() is None and silent.with_silence().frames == 2


def test_an_alignment_of_other_audio(tmp_path):
    store = store_of(tmp_path / "units", {"a": [0, 0, 1, 3]})
    with pytest.raises(InputError, match=r"'a' ends at 0\.200 s, its units were made of 0\.050 s"):
        count_phones(store, {"a": [(0.0, 0.2, "S")]})
    with pytest.raises(InputError, match="no units of utterance 'b'"):
        count_phones(store, {"b": []})


def test_segments():
    def segments(*rows):
        units = np.array([unit for row in rows for unit in row], dtype=np.int16)
        return count_segments(units, np.array([len(row) for row in rows]))

    assert segments([1, 1, 2, 1]) == 3
    assert segments([1, 1], [1]) == 2  # a run ends with its utterance
    assert segments([], [1, 1], [], [1, 2], []) == 3
    assert segments([]) == 0
