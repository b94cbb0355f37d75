"""Whether a run may go on in a folder, and what the folder keeps."""

import os
import subprocess

import pytest

from espnet_lite.config import read_yaml
from espnet_lite.errors import InputError
from espnet_lite.train.experiment import (
    fingerprint,
    flatten,
    move_aside,
    open_experiment,
    refuse_changed_steps,
    refuse_changes,
)

CONFIG = {"train": {"updates": 10, "optimizer": {"name": "adamw", "lr": 1e-3}}, "layers": [1, 2]}


def changed(**train) -> dict:
    return {**CONFIG, "train": {**CONFIG["train"], **train}}


def start(folder, config=CONFIG, inputs=None, *, checkpoint: bool = True) -> None:
    open_experiment(folder, config, inputs or {"train": "abc"}, ["python", "-m", "x", "a b"])
    if checkpoint:
        (folder / "checkpoints" / "update_00000001").mkdir(exist_ok=True)
        (folder / "checkpoints" / "update_00000001" / "state.json").write_text("{}")


def test_flatten_joins_keys_with_points():
    assert flatten({"a": {"b": 1, "c": {"d": [2]}}, "e": None}) == {
        "a.b": 1,
        "a.c.d": [2],
        "e": None,
    }


def test_a_changed_key_is_named_with_both_values_and_the_ways_out(tmp_path):
    start(tmp_path / "exp")
    with pytest.raises(InputError) as raised:
        start(tmp_path / "exp", {**changed(optimizer={"name": "adamw", "lr": 0.5}), "seed": 3})
    text = str(raised.value)
    assert "train.optimizer.lr 0.001 -> 0.5" in text and "seed None -> 3" in text
    assert "layers" not in text and "--exp_tag NAME" in text and "--fresh" in text
    assert str(tmp_path / "exp") in text
    assert read_yaml(tmp_path / "exp" / "config.yaml") == CONFIG  # untouched


def test_only_the_length_may_grow(tmp_path):
    start(tmp_path)
    start(tmp_path)
    start(tmp_path, changed(updates=20))
    assert read_yaml(tmp_path / "config.yaml")["train"]["updates"] == 20
    with pytest.raises(InputError, match=r"train\.updates 20 -> 19"):
        start(tmp_path, changed(updates=19))
    with pytest.raises(InputError, match=r"train\.updates 5 -> None"):
        refuse_changes(tmp_path, {"train": {"updates": 5}}, {})


def test_only_the_last_step_that_has_begun_may_grow(tmp_path):
    folders = [tmp_path / "x_step_1", tmp_path / "x_step_2", tmp_path / "x"]

    def check(*configs):
        steps = list(zip(folders, configs, strict=True))
        refuse_changed_steps(steps, schema=None, tag_option="--expdir")

    check(CONFIG, CONFIG, CONFIG)  # nothing has begun
    start(folders[0])
    check(changed(updates=20), CONFIG, CONFIG)
    start(folders[1])
    check(CONFIG, changed(updates=20), changed(seed=3))
    for configs, message in (
        ((changed(updates=20), CONFIG, CONFIG), r"x_step_1: .*, and x_step_2 goes on from it: "
         r"train\.updates 10 -> 20; .*--expdir NAME.*--fresh"),
        ((CONFIG, changed(seed=3), CONFIG), r"x_step_2: .*configuration: train\.seed None -> 3"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            check(*configs)
    (folders[0] / "checkpoints" / "update_00000001" / "state.json").unlink()
    with pytest.raises(InputError, match="x_step_1: has no checkpoints, and x_step_2 goes on"):
        check(CONFIG, CONFIG, CONFIG)


def test_changed_inputs_are_refused(tmp_path):
    start(tmp_path)
    with pytest.raises(InputError, match="train 'abc' -> 'def'"):
        start(tmp_path, inputs={"train": "def"})


def test_before_the_first_checkpoint_anything_may_change(tmp_path):
    start(tmp_path, checkpoint=False)
    start(tmp_path, changed(updates=1), inputs={"train": "def"}, checkpoint=False)
    assert read_yaml(tmp_path / "config.yaml")["train"]["updates"] == 1


def test_the_folder_keeps_the_command_and_loses_leftovers(tmp_path):
    start(tmp_path / "exp")
    (tmp_path / "exp" / ".model.77.tmp.safetensors").write_text("half")
    (tmp_path / "exp" / "checkpoints" / ".update_00000002.77.tmp").mkdir()
    start(tmp_path / "exp")
    script = tmp_path / "exp" / "run.sh"
    assert os.access(script, os.X_OK)
    assert script.read_text().splitlines()[1:] == [f"cd {os.getcwd()}", "python -m x 'a b'"]
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    assert sorted(path.name for path in (tmp_path / "exp").iterdir()) == [
        "checkpoints",
        "config.yaml",
        "inputs.json",
        "run.sh",
    ]
    assert os.listdir(tmp_path / "exp" / "checkpoints") == ["update_00000001"]


def test_move_aside_keeps_everything(tmp_path, capsys):
    start(tmp_path / "exp")
    move_aside(tmp_path / "exp")
    (aside,) = tmp_path.iterdir()
    assert aside.name.startswith("exp.old-2") and (aside / "config.yaml").is_file()
    assert aside.name in capsys.readouterr().out
    move_aside(tmp_path / "exp")  # nothing there, nothing done
    assert list(tmp_path.iterdir()) == [aside]


def test_move_aside_several_times_within_a_second(tmp_path, monkeypatch):
    monkeypatch.setattr("time.strftime", lambda _: "20260131-120000")
    for count in range(3):
        (tmp_path / "exp").mkdir()
        (tmp_path / "exp" / "which").write_text(str(count))
        move_aside(tmp_path / "exp")
    found = {path.name: (path / "which").read_text() for path in tmp_path.iterdir()}
    assert found == {
        "exp.old-20260131-120000": "0",
        "exp.old-20260131-120000-2": "1",
        "exp.old-20260131-120000-3": "2",
    }


def test_fingerprint_sees_contents_and_their_order(tmp_path):
    for name, text in (("a", "1"), ("b", "2"), ("c", "1")):
        (tmp_path / name).write_text(text)
    a, b, c = (tmp_path / name for name in "abc")
    assert fingerprint([a, b]) == fingerprint([c, b]) != fingerprint([b, a])
    assert len(fingerprint([a])) == 16
    with pytest.raises(InputError, match="none: no such file; run the stages before training"):
        fingerprint([tmp_path / "none"])
