"""train_asr and compute_cmvn as programs: ends, signals, refusals, full disk."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from espnet_lite.bin import compute_cmvn, train_asr
from espnet_lite.config import from_plain, read_yaml, to_plain
from espnet_lite.features.cmvn import load_cmvn
from espnet_lite.models.hubert import HubertConfig, HubertModel
from espnet_lite.models.pretrained import write_encoder
from espnet_lite.train.experiment import fingerprint
from espnet_lite.train.trainer import Trainer

# Limits the size of any file this process writes: for a writer, a disk that is full.
LIMITED = """
import resource, sys
from espnet_lite.bin.train_asr import main
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), hard))
sys.exit(main(sys.argv[2:]))
"""


def arguments_for(corpus, expdir) -> list[str]:
    return [
        *("--config", str(corpus / "conf.yaml"), "--tokenizer", str(corpus / "tokens")),
        *("--train_dirs", str(corpus / "dump/train"), "--dev_dirs", str(corpus / "dump/dev")),
        *("--cmvn", str(corpus / "cmvn.safetensors"), "--expdir", str(expdir)),
        *("--device", "cpu"),
    ]


@pytest.fixture
def arguments(corpus, tmp_path) -> list[str]:
    return arguments_for(corpus, tmp_path / "exp")


def start(arguments: list[str], *, script=("-m", "espnet_lite.bin.train_asr")):
    return subprocess.Popen(
        [sys.executable, *script, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def wait_for_checkpoint(expdir, process) -> None:
    """Wait until the process has saved a checkpoint that it goes on from."""
    end = time.monotonic() + 300
    while not list((expdir / "checkpoints").glob("update_*")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)


def test_statistics_are_the_mean_over_all_frames(corpus):
    statistics, features = load_cmvn(corpus / "cmvn.safetensors")
    sizes = [4000 + 600 * i for i in range(8)]
    assert statistics.frames == sum(1 + (size - 400) // 160 for size in sizes)
    assert features == {"kind": "log_mel", "num_mels": 20, "sample_rate": 16000}


def test_a_training_leaves_model_record_config_and_command(corpus, arguments, tmp_path, capsys):
    assert train_asr.main(arguments) == 0
    exp = tmp_path / "exp"
    record = json.loads((exp / "model.json").read_text())
    weights = load_file(exp / "model.safetensors")
    assert record["updates"] == 6 and record["seed"] == 1 and record["train_utterances"] == 8
    buffers = {"front_end.cmvn.mean", "front_end.cmvn.inverse_std"}
    learned = sum(v.numel() for k, v in weights.items() if k not in buffers)
    assert record["parameters"] == learned
    seconds = sum(4000 + 600 * i for i in range(8)) / 16000
    assert record["train_hours"] == round(seconds / 3600, 3)
    statistics, _ = load_cmvn(corpus / "cmvn.safetensors")
    torch.testing.assert_close(
        weights["front_end.cmvn.mean"].double(), statistics.mean(), atol=1e-5, rtol=1e-6
    )
    assert (exp / "tokenizer/tokens.txt").read_text() == (corpus / "tokens/tokens.txt").read_text()
    assert "--expdir" in (exp / "run.sh").read_text()

    # A changed key is refused, a longer training goes on, --fresh starts in a new folder.
    capsys.readouterr()
    assert train_asr.main([*arguments, "--set", "train.optimizer.lr=0.5"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    for part in ("train.optimizer.lr 0.001 -> 0.5", "--exp_tag", "--fresh", str(exp)):
        assert part in error
    assert train_asr.main([*arguments, "--set", "train.updates=8"]) == 0
    assert "going on after update 6" in capsys.readouterr().out
    assert json.loads((exp / "model.json").read_text())["updates"] == 8
    assert train_asr.main([*arguments, "--set", "train.updates=2", "--fresh"]) == 0
    (aside,) = tmp_path.glob("exp.old-*")
    assert json.loads((aside / "model.json").read_text())["updates"] == 8
    assert json.loads((exp / "model.json").read_text())["updates"] == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--set", "train.udpates=3"], "unknown key 'train.udpates' (did you mean 'updates'?)"),
        (["--set", "train.updates=NO"], "train.updates: expected int, found str 'NO'"),
        (["--set", "model.front_end.num_mels=40"], "'num_mels': 20"),
        (["--cmvn", "none.safetensors"], "none.safetensors: no such file"),
        (["--tokenizer", "none"], "none/tokenizer.json: no such file"),
        (["--train_dirs", "none"], "none"),
        (["--config", "none.yaml"], "none.yaml: no such file"),
        (["--device", "gpu0"], "--device: 'gpu0' is not auto, cpu"),
        (["--set", "train.patience=-1"], "train: patience -1 is not at least 1"),
        (["--set", "train.optimizer.lr=-1"], "train.optimizer: lr -1.0 is not above 0"),
        (["--set", "model.encoder.dropout=1.5"], "model.encoder: dropout 1.5 is not at least 0"),
        (["--set", "model.inter_ctc_layers=[9]"], "model: inter_ctc_layers 9 is not at least 1"),
        (["--set", "model.decoder={name: transformer, heads: 3}"], "model: encoder.dim 16, the"),
        (["--set", "data.batch_seconds=0"], "data: batch_seconds 0.0 is not above 0"),
        (["--set", "data.max_batch_utterances=0"], "data: max_batch_utterances 0 is not at least"),
        (["--set", "data.speed_factors=[]"], "data: speed_factors are none"),
        (["--set", "data.speed_factors=[1, -1]"], "data: speed_factors -1.0 is not at least 0.1"),
        (["--set", "data.short_first_epochs=-1"], "data: short_first_epochs -1 is not at least 0"),
        (["--set", "train.criterion=wer"], "train.criterion: 'wer' is not a metric"),
    ],
)
def test_faults_are_one_line_exit_code_2_and_leave_all_as_it_was(
    arguments, tmp_path, capsys, change, message
):
    (tmp_path / "exp").mkdir()
    (tmp_path / "exp" / "model.json").write_text("{}")
    assert train_asr.main([*arguments, "--fresh", *change]) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == ["exp"]
    kept = [path.name for path in (tmp_path / "exp").iterdir() if not path.name.startswith(".")]
    assert kept == ["model.json"]


def test_a_changed_tokenizer_is_refused_and_its_copy_is_whole(corpus, arguments, tmp_path, capsys):
    tokens = tmp_path / "tokens"
    shutil.copytree(corpus / "tokens", tokens)
    (tokens / "notes").write_text("no part of the tokenizer")
    arguments = [*arguments, "--tokenizer", str(tokens), "--set", "train.updates=1"]
    assert train_asr.main(arguments) == 0
    copied = {path.name: path.read_text() for path in (tmp_path / "exp/tokenizer").iterdir()}
    assert copied == {path.name: path.read_text() for path in (corpus / "tokens").iterdir()}
    description = tokens / "tokenizer.json"
    plain = json.loads(description.read_text())
    description.write_text(json.dumps({**plain, "nlsyms": ["<a>"]}))  # tokens.txt is the same
    assert train_asr.main(arguments) == 2
    assert "was trained with another configuration: tokens '" in capsys.readouterr().err


def test_the_record_is_json_though_a_dev_value_is_not_finite(arguments, tmp_path, monkeypatch):
    values = iter([math.inf, 2.5])
    monkeypatch.setattr(Trainer, "evaluate", lambda self: {"loss": next(values)})
    assert train_asr.main(arguments) == 0

    def refuse(constant):
        raise AssertionError(constant)

    text = (tmp_path / "exp/model.json").read_text()
    assert json.loads(text, parse_constant=refuse)["best"] == [[2.5, 6], [None, 3]]


@pytest.mark.slow
def test_a_full_disk_at_a_checkpoint_keeps_the_earlier_one(arguments, tmp_path):
    exp = tmp_path / "exp"
    assert train_asr.main([*arguments, "--set", "train.updates=2"]) == 0
    before = (exp / "checkpoints/update_00000002/model.safetensors").read_bytes()
    process = start(["6000", *arguments], script=("-c", LIMITED))
    _, error = process.communicate(timeout=300)
    assert process.returncode == 2, error
    last = error.splitlines()[-1]
    assert last.startswith("error: ") and "cannot write: File too large" in last
    assert "Traceback" not in error
    assert [path.name for path in (exp / "checkpoints").glob("*update_*")] == ["update_00000002"]
    assert (exp / "checkpoints/update_00000002/model.safetensors").read_bytes() == before
    assert train_asr.main(arguments) == 0  # with space again it goes on


LONG = ["--set", "train.updates=200", "--set", "train.validate_every=100"]


@pytest.fixture(scope="module")
def straight(corpus, tmp_path_factory):
    """Return the folder of a training of 200 updates that nothing ended."""
    expdir = tmp_path_factory.mktemp("straight") / "exp"
    process = start([*arguments_for(corpus, expdir), *LONG])
    assert process.communicate(timeout=300) and process.returncode == 0
    return expdir


def losses(expdir) -> list[tuple]:
    lines = (expdir / "train.jsonl").read_text().splitlines()
    return [(e["kind"], e["update"], e["loss"]) for e in map(json.loads, lines)]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_process_that_was_ended_goes_on_to_the_bit(straight, arguments, tmp_path, number):
    exp = tmp_path / "exp"
    ended = start([*arguments, *LONG])
    wait_for_checkpoint(exp, ended)
    ended.send_signal(number)
    output, _ = ended.communicate(timeout=300)
    assert not (exp / "model.safetensors").exists(), "ended too late to be a test"
    if number == signal.SIGKILL:
        assert ended.returncode == -signal.SIGKILL
    else:
        assert ended.returncode == 75 and "run again to go on" in output
    again = start([*arguments, *LONG])
    output, _ = again.communicate(timeout=300)
    assert again.returncode == 0 and "going on after update" in output
    first, second = (load_file(folder / "model.safetensors") for folder in (straight, exp))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert losses(straight) == losses(exp) and len(losses(exp)) == 102


def test_the_record_names_files_as_a_recipe_folder_has_them(arguments, tmp_path):
    assert train_asr.main([*arguments, "--set", "train.updates=1"]) == 0
    command = json.loads((tmp_path / "exp/model.json").read_text())["command"]
    assert "--train_dirs dump/train --dev_dirs dump/dev" in command
    assert "--cmvn cmvn.safetensors --expdir exp" in command and str(tmp_path) not in command


@pytest.fixture
def pretrained(corpus, tmp_path):
    """Return a file with front end and encoder of an untrained HuBERT of conf.yaml's architecture."""
    model = {key: read_yaml(corpus / "conf.yaml")["model"][key] for key in ("front_end", "encoder")}
    config = from_plain(HubertConfig, model)
    torch.manual_seed(5)
    path = tmp_path / "base.v2.safetensors"
    write_encoder(path, HubertModel(config, clusters=3).state_dict(), to_plain(config))
    return path


def test_a_recognizer_from_a_given_file_and_what_its_record_says(arguments, pretrained, tmp_path):
    frozen = ["--set", "train.frozen_parts=[front_end, encoder]", "--set", "train.updates=1"]
    assert train_asr.main([*arguments, *frozen, "--pretrained", str(pretrained)]) == 0
    given, weights = load_file(pretrained), load_file(tmp_path / "exp/model.safetensors")
    assert all(torch.equal(weights[name], given[name].float()) for name in given)
    record = json.loads((tmp_path / "exp/model.json").read_text())
    assert record["pretrained"] == {"name": "base.v2"}
    inputs = json.loads((tmp_path / "exp/inputs.json").read_text())
    assert inputs["pretrained"] == fingerprint([pretrained])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--pretrained", "none"], "none: no such file"),
        (["--pretrained", "{corpus}"], "config.yaml: no such file"),
        (["--pretrained", "{corpus}/cmvn.safetensors"], "describes no front_end and encoder"),
        (["--set", "model.encoder.dim=32"], "encoder.dim 16, not 32"),
        (["--set", "model.front_end.cmvn=utterance"], "front_end.cmvn 'global', not 'utterance'"),
        (
            ["--set", "model.input_mask={time_probability: 2}"],
            "time_probability 2.0 is not at least",
        ),
        (
            ["--set", "train.frozen_parts=[input_mask]"],
            "unknown part of the model 'input_mask', expected one of: ctc_",
        ),
    ],
)
def test_an_encoder_that_does_not_fit_is_one_line(
    corpus, arguments, pretrained, tmp_path, capsys, change, message
):
    words = [word.replace("{corpus}", str(corpus)) for word in change]
    assert train_asr.main([*arguments, "--pretrained", str(pretrained), *words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1
    assert not (tmp_path / "exp").exists() or not any((tmp_path / "exp").glob("[!.]*"))


def test_statistics_of_the_same_audio_and_features_stand(corpus, tmp_path, capsys):
    output = tmp_path / "cmvn.safetensors"
    data = tmp_path / "train"
    shutil.copytree(corpus / "dump/train", data)
    arguments = ["--data_dirs", str(data), "--config", str(corpus / "conf.yaml")]
    arguments += ["--output", str(output)]

    def again(*more: str) -> bool:
        """Return whether the statistics were computed."""
        assert compute_cmvn.main([*arguments, *more]) == 0
        return "up to date" not in capsys.readouterr().out

    assert again() and not again()
    assert again("--set", "model.front_end.num_mels=23") and again() and not again()
    output.write_bytes(output.read_bytes()[:-1])
    assert again() and not again()
    with (data / "wav.scp").open("a") as file:
        file.write(f"train8 {data}/train0.wav\n")
    for name, value in (("utt2spk", "train8"), ("utt2num_samples", "4000"), ("text", "b")):
        with (data / name).open("a") as file:
            file.write(f"train8 {value}\n")
    assert again() and not again()
    assert again("--set", "model.front_end.cmvn=none") and again()
