"""quantize_asr as a program: steps, resuming, what the experiment holds, refusals."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from espnet_lite.bin import quantize_asr, train_asr
from espnet_lite.config import dump_yaml, read_yaml
from espnet_lite.tasks import training
from espnet_lite.tasks.quantize import load_recognizer, read_trained

CONFIG = """\
rules:
  - {kinds: [attention_linear, attention_matmul, feed_forward], weight_bits: 1, activation_bits: 1}
  - {kinds: [subsampling, head], weight_bits: 8, activation_bits: 8}
calibration_utterances: 4
training:
  steps: [{activation_bits: 8, updates: 2}, {updates: 4}]
  train:
    log_every: 1
    validate_every: 2
    save_every: 1
    average_best: 1
    schedule: {name: warmup_cosine, warmup_updates: 1}
"""


@pytest.fixture(scope="session")
def teacher(corpus, tmp_path_factory):
    expdir = tmp_path_factory.mktemp("teacher") / "asr"
    arguments = [
        *("--config", str(corpus / "conf.yaml"), "--tokenizer", str(corpus / "tokens")),
        *("--train_dirs", str(corpus / "dump/train"), "--dev_dirs", str(corpus / "dump/dev")),
        *("--cmvn", str(corpus / "cmvn.safetensors"), "--expdir", str(expdir)),
        *("--device", "cpu", "--set", "model.decoder={name: transformer, layers: 1, heads: 2}"),
    ]
    assert train_asr.main(arguments) == 0
    return expdir


@pytest.fixture
def arguments(corpus, teacher, tmp_path) -> list[str]:
    (tmp_path / "quantize.yaml").write_text(CONFIG)
    return [
        *("--config", str(tmp_path / "quantize.yaml"), "--teacher", str(teacher)),
        *("--train_dirs", str(corpus / "dump/train"), "--dev_dirs", str(corpus / "dump/dev")),
        *("--expdir", str(tmp_path / "w1a1"), "--device", "cpu"),
    ]


def test_two_steps_leave_two_experiments_and_the_second_learns_from_the_first(
    arguments, teacher, tmp_path, capsys
):
    assert quantize_asr.main(arguments) == 0
    shown = capsys.readouterr().out
    assert "bit 1 by channel  absmax 8 by token" in shown and "bit 1 by channel  bit 1" in shown
    first, second = tmp_path / "w1a1_step_1", tmp_path / "w1a1"
    assert [r["activation_bits"] for r in read_yaml(first / "config.yaml")["rules"]] == [8, 8]
    assert [r["activation_bits"] for r in read_yaml(second / "config.yaml")["rules"]] == [1, 8]
    record = json.loads((second / "model.json").read_text())
    assert record["teacher"] == "w1a1_step_1" and record["updates"] == 4
    (earlier,) = record["quantization"]["earlier_steps"]
    assert earlier["name"] == "w1a1_step_1" and earlier["updates"] == 2
    assert 0 <= record["dev"]["agreement"] <= 1 and record["dev"]["loss_ctc"] > 0
    lines = [json.loads(line) for line in (second / "train.jsonl").read_text().splitlines()]
    trained = [line for line in lines if line["kind"] == "train"]
    assert all(line["divergence"] >= 0 and line["hidden_error"] > 0 for line in trained)

    weights = load_file(second / "model.safetensors")
    assert set(load_file(teacher / "model.safetensors")) < set(weights)  # latent, by their names
    model = load_recognizer(second)
    assert [rule.weight_bits for rule in read_trained(second).rules] == [1, 8]
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, weights[name]), name
    codes = model.encoder.blocks[0].feed_forward.expand.weight_quantizer.codes(
        model.encoder.blocks[0].feed_forward.expand.weight
    )
    assert set(codes.codes.flatten().tolist()) == {-1, 1}

    assert quantize_asr.main(arguments) == 0  # done: nothing is trained again
    assert json.loads((second / "model.json").read_text())["minutes"] == record["minutes"]


def test_without_teacher_only_the_transcripts_count(arguments, tmp_path):
    options = ["--set", "training.distillation=null", "--set", "training.steps=[]"]
    assert quantize_asr.main([*arguments, *options, "--set", "training.train.updates=2"]) == 0
    lines = [json.loads(line) for line in (tmp_path / "w1a1/train.jsonl").read_text().splitlines()]
    assert not (tmp_path / "w1a1_step_1").exists()
    assert all("divergence" not in line for line in lines)
    assert "agreement" in lines[-1]


COTRAINED = [
    *("--set", "training.steps=[]", "--set", "training.train.updates=4"),
    *("--set", "training.precisions=[{weight_bits: 8, activation_bits: 8}]"),
]


@pytest.mark.parametrize(
    ("options", "folders"), [([], ("again_step_1", "again")), (COTRAINED, ("again",))]
)
def test_killed_anywhere_it_goes_on_to_the_same_weights(options, folders, arguments, tmp_path):
    arguments = [*options, *arguments]
    assert quantize_asr.main(arguments) == 0
    expected = load_file(tmp_path / "w1a1/model.safetensors")
    again = [*arguments[:-3], str(tmp_path / "again"), "--device", "cpu"]
    command = [sys.executable, "-m", "espnet_lite.bin.quantize_asr", *again]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for folder in folders:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        end = time.monotonic() + 300
        while not list((tmp_path / folder / "checkpoints").glob("update_*")):
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert quantize_asr.main(again) == 0
    found = load_file(tmp_path / "again/model.safetensors")
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert torch.equal(tensor, expected[name]), name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--set", "training=null"], "has no training; pack_model packs it"),
        (["--set", "rules=[{kinds: [conv_depthwise], weight_bits: 1}]"], "takes nothing"),
        (["--set", "training.distillation.hiden=1"], "did you mean 'hidden'"),
        (["--teacher", "nowhere"], "nowhere/config.yaml"),
        (["--set", "training.train.updates=9"], "training.train.updates 9 beside training.steps"),
        (
            ["--set", "rules=[{kinds: [attention_matmul], weight_bits: 1}]"],
            "rules[0]: quantizes nothing of attention_matmul",
        ),
    ],
)
def test_slips_are_one_line(arguments, options, message, tmp_path, capsys):
    assert quantize_asr.main([*arguments, *options]) == 2
    err = capsys.readouterr().err
    assert message in err and len(err.splitlines()) == 1
    assert not (tmp_path / "w1a1").exists() or not list((tmp_path / "w1a1").iterdir())


@pytest.mark.parametrize("option", ["--asr_config", "--tokenizer", "--asr_set"])
def test_what_is_of_a_pretrained_encoder_is_refused_beside_a_teacher(option, arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        quantize_asr.main([*arguments, option, "x"])
    assert ended.value.code == 2
    assert f"{option} is for --pretrained" in capsys.readouterr().err


def contents(*folders) -> dict:
    return {p: p.read_bytes() for folder in folders for p in folder.rglob("*") if p.is_file()}


def test_a_longer_first_step_is_refused_once_a_later_one_has_begun(arguments, tmp_path, capsys):
    assert quantize_asr.main(arguments) == 0
    folders = tmp_path / "w1a1_step_1", tmp_path / "w1a1"
    before = contents(*folders)
    config = tmp_path / "quantize.yaml"
    config.write_text(
        CONFIG.replace("activation_bits: 8, updates: 2", "activation_bits: 8, updates: 12")
    )
    assert quantize_asr.main(arguments) == 2
    err = capsys.readouterr().err
    assert "w1a1 goes on from it: train.updates 2 -> 12" in err and "--quantize_tag NAME" in err
    assert contents(*folders) == before
    # Of the last one that has begun the length may still grow.
    config.write_text(CONFIG.replace("{updates: 4}", "{updates: 5}"))
    assert quantize_asr.main(arguments) == 0
    assert json.loads((folders[1] / "model.json").read_text())["updates"] == 5


class Killed(Exception):
    pass


def test_fresh_and_killed_after_the_first_step_it_goes_on_without(arguments, tmp_path, monkeypatch):
    assert quantize_asr.main(arguments) == 0
    changed = [*arguments, "--set", "training.dropout=0.1"]
    with monkeypatch.context() as patched:

        def die(*args, **kwargs):
            raise Killed

        patched.setattr(training, "training_record", die)
        with pytest.raises(Killed):
            quantize_asr.main([*changed, "--fresh"])
    assert not (tmp_path / "w1a1").exists()
    assert (
        len(list(tmp_path.glob("w1a1.old-*"))) == len(list(tmp_path.glob("w1a1_step_1.old-*"))) == 1
    )
    first = load_file(tmp_path / "w1a1_step_1/model.safetensors")
    assert quantize_asr.main(changed) == 0
    again = load_file(tmp_path / "w1a1_step_1/model.safetensors")
    assert all(torch.equal(tensor, again[name]) for name, tensor in first.items())
    assert read_yaml(tmp_path / "w1a1/config.yaml")["dropout"] == 0.1


@pytest.mark.parametrize(
    ("part", "key", "value", "message"),
    [
        (
            "encoder",
            "feed_forward",
            24,
            "has the shape [16, 16], its config.yaml asks for [24, 16]",
        ),
        ("encoder", "layers", 2, "has no weight 'encoder.blocks.1."),
        (None, "decoder", None, "has a weight 'decoder."),
    ],
)
def test_weights_of_another_configuration(
    part, key, value, message, arguments, teacher, tmp_path, capsys
):
    shutil.copytree(teacher, tmp_path / "teacher")
    config = read_yaml(teacher / "config.yaml")
    (config["model"] if part is None else config["model"][part])[key] = value
    (tmp_path / "teacher/config.yaml").write_text(dump_yaml(config))
    assert quantize_asr.main([*arguments, "--teacher", str(tmp_path / "teacher")]) == 2
    err = capsys.readouterr().err
    assert message in err and len(err.splitlines()) == 1 and "model.safetensors" in err


def test_another_policy_in_the_same_folder_is_refused(arguments, capsys):
    assert quantize_asr.main(arguments) == 0
    assert quantize_asr.main([*arguments, "--set", "training.dropout=0.1"]) == 2
    err = capsys.readouterr().err
    assert "dropout 0.0 -> 0.1" in err and "--quantize_tag NAME" in err


def test_precisions_trained_together_leave_the_model_of_the_policy(arguments, tmp_path, capsys):
    options = [
        *("--set", "training.steps=[]", "--set", "training.train.updates=3"),
        *("--set", "training.precisions=[{weight_bits: 8, activation_bits: 8}, {weight_bits: 2}]"),
    ]
    assert quantize_asr.main([*arguments, *options]) == 0
    assert "lsq 8 by channel | lsq 2 by channel | bit 1 by channel" in capsys.readouterr().out
    weights = load_file(tmp_path / "w1a1/model.safetensors")
    model = load_recognizer(tmp_path / "w1a1")
    expand = model.encoder.blocks[0].feed_forward.expand
    name = "encoder.blocks.0.feed_forward.expand"
    assert expand.weight_quantizer.bits == expand.input_quantizer.bits == 1
    assert torch.equal(expand.weight, weights[f"{name}.weight"])
    last = f"{name}.input_quantizer.members.2.scale_factor"
    assert torch.equal(expand.input_quantizer.scale_factor, weights[last])
    learned = [weights[f"{name}.weight_quantizer.members.{i}.scale_factor"] for i in (0, 1)]
    assert any((factor != 1).any() for factor in learned)  # at random, but in three updates one is
    options[-1] = "training.precisions=[{weight_bits: 16, activation_bits: 8}]"
    assert quantize_asr.main([*arguments, *options, "--fresh"]) == 2
    assert "a further precision leaves weight quantizer in floating" in capsys.readouterr().err
