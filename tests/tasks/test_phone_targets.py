"""Phones of frames by hand."""

import pytest

from espnet_lite.features.frame_grid import FrameGrid
from espnet_lite.models.probe import SILENCE_CLASS
from espnet_lite.tasks.phone_targets import PhoneTargets

# 1,000 Hz, frames of 100 ms every 40 ms: their middles are at 50, 90, 130, … ms.
GRID = FrameGrid(1000, 100, 40)
ALIGNMENTS = {
    "a": [(0.0, 0.06, "sil"), (0.06, 0.13, "AH0"), (0.13, 0.2, "T"), (0.25, 0.3, "AH1")],
    "b": [(0.0, 1.0, "sp")],
    "c": [],
}


@pytest.fixture
def targets() -> PhoneTargets:
    return PhoneTargets(ALIGNMENTS, grid=GRID)


def phones(targets: PhoneTargets, name: str, **place) -> list[str]:
    labels = targets.units_for(name, **place)
    assert labels.dtype.name == "int64"
    return [targets.phones[label] for label in labels]


def test_the_middle_of_a_frame_decides(targets):
    assert targets.phones == ["sil", "AH", "T"] and SILENCE_CLASS == 0
    found = phones(targets, "a", num_samples=340, start_samples=0, part_samples=340)
    # 50, 90, 130 (T begins there), 170, 210 (beside all), 250, 290 ms; frame 7 would end at 380.
    assert found == ["sil", "AH", "T", "T", "sil", "AH", "AH"]


def test_a_part_has_the_phones_of_its_own_samples(targets):
    found = phones(targets, "a", num_samples=340, start_samples=30, part_samples=180)
    assert found == ["AH", "AH", "T"]  # 80, 120, 160 ms


@pytest.mark.parametrize(("samples", "frames"), [(99, 0), (100, 1), (1500, 36)])
def test_as_many_labels_as_frames_also_beyond_the_alignment(targets, samples, frames):
    for name in ("b", "c"):
        found = phones(targets, name, num_samples=samples, start_samples=0, part_samples=samples)
        assert found == ["sil"] * frames
