"""Learning curves from train.jsonl."""

import itertools
import json

from espnet_lite.report.trainings import MOST_POINTS, read_trainings


def write_log(folder, lines: list[dict], *, end: str = "") -> None:
    folder.mkdir()
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "train.jsonl").write_text(text + end)


def test_curves_have_update_minutes_and_value(tmp_path):
    lines = [
        {"kind": "train", "update": 1, "minutes": 0.5, "loss": 2.0, "epoch": 0, "note": "x"},
        {"kind": "train", "update": 2, "minutes": 1.0, "loss": float("nan"), "epoch": 0},
        {"kind": "dev", "update": 2, "loss": 1.23456789},
    ]
    write_log(tmp_path / "x", lines, end='{"kind": "train", "upd')
    assert read_trainings(tmp_path) == [
        {
            "name": "x",
            "group": "Other trainings",
            "curves": {
                "train": {"loss": [[1, 0.5, 2.0]]},
                "dev": {"loss": [[2, None, 1.23457]]},
            },
        }
    ]


def test_a_long_curve_is_thinned_to_its_end(tmp_path):
    lines = [{"kind": "train", "update": i, "loss": float(i)} for i in range(1, 1000)]
    write_log(tmp_path / "x", lines)
    [training] = read_trainings(tmp_path)
    points = training["curves"]["train"]["loss"]
    updates = [point[0] for point in points]
    assert len(points) <= MOST_POINTS
    assert updates[-1] == 999
    assert {b - a for a, b in itertools.pairwise(updates)} == {4}


def test_groups_and_what_is_left_out(tmp_path):
    def line(value):
        return [{"kind": "train", "update": 1, value: 1.0}]

    write_log(tmp_path / "asr_a", line("loss_ctc"))
    write_log(tmp_path / "pretrain_a", line("accuracy_unmasked"))
    write_log(tmp_path / "lm_a", line("loss"))
    write_log(tmp_path / "asr_a.old-20260101-000000", line("loss_ctc"))
    write_log(tmp_path / ".hidden", line("loss_ctc"))
    write_log(tmp_path / "asr_begun", [])
    found = {training["name"]: training["group"] for training in read_trainings(tmp_path)}
    assert found == {
        "asr_a": "Recognizers",
        "lm_a": "Other trainings",
        "pretrain_a": "Pre-training",
    }
