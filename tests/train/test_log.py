"""train.jsonl after a kill, and durations."""

import json

import pytest

from espnet_lite.train.log import TrainLog, cut_log, duration


def lines(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_entries_beyond_the_checkpoint_and_half_lines_are_dropped(tmp_path):
    path = tmp_path / "train.jsonl"
    whole = [{"kind": "train", "update": update} for update in (2, 4, 6)]
    path.write_text("".join(json.dumps(entry) + "\n" for entry in whole) + '{"kind": "tr')
    cut_log(path, 6)
    assert lines(path) == whole
    cut_log(path, 5)
    assert lines(path) == whole[:2]
    cut_log(path, 0)
    assert path.read_text() == ""
    cut_log(tmp_path / "none.jsonl", 3)
    assert not (tmp_path / "none.jsonl").exists()


def test_a_log_goes_on_after_the_update_it_was_opened_at(tmp_path):
    for start, updates in ((0, (2, 4)), (2, (3,))):
        log = TrainLog(tmp_path, update=start)
        for update in updates:
            log.write("train", update, {"loss": 1.5, "text": "x"})
        log.close()
    assert [entry["update"] for entry in lines(tmp_path / "train.jsonl")] == [2, 3]
    assert lines(tmp_path / "train.jsonl")[0] == {
        "kind": "train",
        "update": 2,
        "loss": 1.5,
        "text": "x",
    }
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "00:00"), (59.6, "01:00"), (3599.0, "59:59"), (3723.0, "1:02:03")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text
