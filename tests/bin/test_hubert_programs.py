"""Pre-training as a user runs it: units → HuBERT → its units → HuBERT again → recognizer → words."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file

from espnet_lite.bin import decode_asr, make_units, pack_model, train_asr, train_hubert
from espnet_lite.config import from_plain, read_yaml
from espnet_lite.data.data_dir import read_data_dir
from espnet_lite.models.asr import AsrConfig, AsrModel
from espnet_lite.models.hubert import HubertConfig, HubertModel
from espnet_lite.runtime.packed_model import PackedModel
from espnet_lite.tasks.hubert import PretrainConfig, build_loaders
from espnet_lite.units.store import UnitStore

# Of the corpus, train0 and train1 are shorter than min_seconds, train5 to train7 are cropped.
YAML = """\
model:
  front_end: {name: log_mel, num_mels: 20, channels: 3}
  encoder: {name: transformer, dim: 16, layers: 2, heads: 2, feed_forward: 16}
  head: {name: cosine, dim: 8}
  mask: {probability: 0.5, span_ms: 160, min_spans: 1}
  feature_penalty: 1.0
  feature_gradient: 0.5
  inner_layers: [1]
data: {batch_seconds: 0.8, crop_seconds: 0.4, min_seconds: 0.3}
train:
  updates: 6
  precision: fp32
  threads: 1
  accumulate: 2
  log_every: 1
  validate_every: 3
  save_every: 2
  average_best: 1
  schedule: {name: warmup_inverse_root, warmup_updates: 2}  # knows no end
"""
MEASURED = ("minutes", "core_minutes", "audio_seconds_per_second", "data_wait_percent")


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("conf") / "pretrain.yaml"
    path.write_text(YAML)
    return path


def sets_of(corpus) -> list[str]:
    return ["--train_dirs", str(corpus / "dump/train"), "--dev_dirs", str(corpus / "dump/dev")]


def unit_arguments(corpus, output: Path, *source: str) -> list[str]:
    return [
        *("--data_dirs", str(corpus / "dump/train"), "--label_dirs", str(corpus / "dump/dev")),
        *("--device", "cpu", "--output", str(output), *source),
    ]


@pytest.fixture(scope="module")
def units(corpus, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("units") / "units_it1"
    source = ("--features", "mfcc", "--clusters", "8")
    assert make_units.main(unit_arguments(corpus, output, *source)) == 0
    return output


def arguments_of(corpus, config, units, expdir) -> list[str]:
    return [
        *("--config", str(config), *sets_of(corpus), "--units", str(units), "--device", "cpu"),
        *("--cmvn", str(corpus / "cmvn.safetensors"), "--expdir", str(expdir)),
    ]


@pytest.fixture
def arguments(corpus, config, units, tmp_path) -> list[str]:
    return arguments_of(corpus, config, units, tmp_path / "exp")


@pytest.fixture(scope="module")
def first(corpus, config, units, tmp_path_factory) -> Path:
    """The experiment of iteration 1."""
    expdir = tmp_path_factory.mktemp("exp") / "pretrain_it1"
    assert train_hubert.main(arguments_of(corpus, config, units, expdir)) == 0
    return expdir


def curve(expdir: Path) -> list[dict]:
    """Return train.jsonl without what a clock measured."""
    lines = (expdir / "train.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(x).items() if k not in MEASURED} for x in lines]


def assert_same_weights(one: Path, two: Path) -> None:
    first, second = (load_file(folder / "model.safetensors") for folder in (one, two))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_pre_training_leaves_model_record_and_what_the_log_says_of_it(corpus, units, first):
    record = json.loads((first / "model.json").read_text())
    assert (record["updates"], record["clusters"], record["train_utterances"]) == (6, 8, 6)
    seconds = sum(4000 + 600 * i for i in range(2, 8)) / 16000  # those that are long enough
    assert record["train_hours"] == round(seconds / 3600, 3)
    assert record["units"] == UnitStore(units).description
    assert record["config"] == "pretrain.yaml" and record["processes"] == 1
    weights = load_file(first / "model.safetensors")
    assert weights["head.embeddings"].shape == weights["inner_heads.1.1.embeddings"].shape == (8, 8)
    entries = curve(first)
    assert [e["update"] for e in entries if e["kind"] == "dev"] == [3, 6]
    assert all(0 < entry["masked"] < 1 for entry in entries)

    # The model as it was saved, on the dev set: the loss that the log gives of the best update.
    plain = read_yaml(first / "config.yaml")
    config = from_plain(PretrainConfig, plain)
    assert plain["model"]["inner_layers"] == [1]
    model = HubertModel(from_plain(HubertConfig, plain["model"]), clusters=8).eval()
    model.load_state_dict(weights)
    tables = [read_data_dir(corpus / "dump" / name, need_text=False) for name in ("train", "dev")]
    _, loader = build_loaders(config, *tables, units=UnitStore(units), grid=model.front_end.grid)
    [batch] = loader.batches(0)
    assert batch.ids == ["dev2"]  # 0.325 s; the other two are too short
    with torch.inference_mode():
        loss = model(batch)
    assert record["dev"]["loss"] == pytest.approx(float(loss.total) / loss.count, rel=1e-5)
    right, frames = loss.metrics["accuracy_unmasked"]
    assert record["dev"]["accuracy_unmasked"] == pytest.approx(float(right) / frames)
    assert loss.count + frames == 7 and record["dev"]["masked"] == loss.count / 7


def test_what_is_left_out_is_said(arguments, capsys):
    assert train_hubert.main([*arguments, "--set", "train.updates=1"]) == 0
    said = capsys.readouterr().out
    assert "6 utterances, 2 more are too short (data.min_seconds)\n" in said


def test_stopped_in_the_middle_of_an_epoch_it_goes_on_to_the_bit(
    first, arguments, tmp_path, capsys
):
    for updates in (1, 4, 6):
        assert train_hubert.main([*arguments, "--set", f"train.updates={updates}"]) == 0
    assert "going on after update 4" in capsys.readouterr().out
    epochs = [entry["epoch"] for entry in curve(first) if entry["kind"] == "train"]
    assert len(set(epochs)) > 1 and len(epochs) > len(set(epochs))  # several, and within one
    trained = [e for e in curve(tmp_path / "exp") if e["kind"] == "train"]
    assert trained == [e for e in curve(first) if e["kind"] == "train"]
    last = [
        sorted((folder / "checkpoints").glob("update_*"))[-1]
        for folder in (first, tmp_path / "exp")
    ]
    assert_same_weights(*last)


def test_two_iterations_a_recognizer_and_words(corpus, config, first, tmp_path, capsys):
    second_units = tmp_path / "units_it2"
    source = ("--model", str(first), "--layer", "1", "--clusters", "6")
    assert make_units.main(unit_arguments(corpus, second_units, *source)) == 0
    store = UnitStore(second_units)
    assert (store.clusters, store.grid.shift_samples) == (6, 640)  # at the model's rate

    second = tmp_path / "pretrain_it2"
    arguments = arguments_of(corpus, config, second_units, second)
    assert train_hubert.main([*arguments, "--init", str(first)]) == 0
    record = json.loads((second / "model.json").read_text())
    assert record["clusters"] == 6 and record["pretrained"]["name"] == "pretrain_it1"
    capsys.readouterr()
    assert train_hubert.main(arguments) == 2  # not from what it began with
    assert "init '" in capsys.readouterr().err

    asr = tmp_path / "asr"
    words = ["--config", str(corpus / "conf.yaml"), *sets_of(corpus), "--device", "cpu"]
    words += ["--tokenizer", str(corpus / "tokens"), "--expdir", str(asr)]
    words += ["--cmvn", str(corpus / "cmvn.safetensors"), "--pretrained"]
    for change in (
        *("model.encoder.layers=2", "model.encoder.dropout=0.1", "train.precision=fp32"),
        *("model.input_mask={time_probability: 0.5}", "train.average_best=1"),
        "train.frozen_parts=[front_end, encoder, input_mask]",
    ):
        words[:0] = ["--set", change]
    assert train_asr.main([*words, str(second)]) == 0
    weights, before = load_file(asr / "model.safetensors"), load_file(second / "model.safetensors")
    kept = [name for name in weights if name.startswith(("front_end.", "encoder."))]
    assert kept and all(torch.equal(weights[name], before[name]) for name in kept)
    assert {"front_end.cmvn.mean", "front_end.cmvn.inverse_std"} <= {*kept}
    assert torch.equal(weights["input_mask.embedding"], before["mask_embedding"])
    told = json.loads((asr / "model.json").read_text())["pretrained"]
    assert {key: told[key] for key in ("name", "config", "updates", "clusters")} == {
        "name": "pretrain_it2",
        "config": "pretrain.yaml",
        "updates": 6,
        "clusters": 6,
    }
    assert told["pretrained"]["name"] == "pretrain_it1"

    capsys.readouterr()
    assert train_asr.main([*words, str(first)]) == 2  # a training goes on with the same encoder
    error = capsys.readouterr().err
    assert "pretrained '" in error and "--exp_tag" in error and error.count("\n") == 1
    assert train_asr.main([*words, str(second), "--set", "train.updates=8"]) == 0
    assert "going on after update 6" in capsys.readouterr().out

    policy, packed = tmp_path / "quantize_fp32.yaml", tmp_path / "model.esp"
    policy.write_text("weights: fp32\n")
    arguments = ["--expdir", str(asr), "--config", str(policy), "--output", str(packed)]
    assert pack_model.main(arguments) == 0
    model = AsrModel(
        from_plain(AsrConfig, read_yaml(asr / "config.yaml")["model"]), vocab=told_vocab(corpus)
    )
    model.load_state_dict(load_file(asr / "model.safetensors"))
    waveform = 0.1 * torch.randn(1, 9000, generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([9000])
    with torch.inference_mode():
        output = model.eval().encode(waveform, lengths)
        expected = model.ctc_log_probs(output.encoded)
    log_probs, _ = PackedModel.load(packed).log_probs(waveform, lengths)
    torch.testing.assert_close(log_probs, expected, atol=1e-5, rtol=1e-5)
    decoding = tmp_path / "decode_greedy.yaml"
    decoding.write_text("method: ctc_greedy\n")
    arguments = ["--model", str(packed), "--data_dir", str(corpus / "dump/dev")]
    arguments += ["--config", str(decoding), "--output_dir", str(tmp_path / "decode")]
    assert decode_asr.main(arguments) == 0
    lines = (tmp_path / "decode" / "text").read_text().splitlines()
    assert [line.split(" ")[0] for line in lines] == ["dev0", "dev1", "dev2"]


def told_vocab(corpus) -> int:
    return len((corpus / "tokens/tokens.txt").read_text().splitlines())


def test_a_silent_set_is_learned_from_without_harm(corpus, config, tmp_path):
    """Digital silence alone: no variance, and every frame the same unit."""
    dump = tmp_path / "dump"
    shutil.copytree(corpus / "dump", dump)
    for name in ("train", "dev"):
        table = (dump / name / "wav.scp").read_text().replace(str(corpus), str(tmp_path))
        (dump / name / "wav.scp").write_text(table)
        for path in (dump / name).glob("*.wav"):
            soundfile.write(path, np.zeros(soundfile.info(path).frames, np.int16), 16000)
    units = tmp_path / "units"
    assert (
        make_units.main(unit_arguments(tmp_path, units, "--features", "mfcc", "--clusters", "4"))
        == 0
    )
    arguments = arguments_of(corpus, config, units, tmp_path / "exp")
    arguments += sets_of(tmp_path)  # the later of two counts
    arguments += ["--set", "model.front_end.cmvn=utterance", "--set", "model.mask.span_ms=40"]
    assert train_hubert.main(arguments) == 0
    assert all(math.isfinite(entry["loss"]) for entry in curve(tmp_path / "exp"))


@pytest.fixture(scope="module")
def train_units(corpus, tmp_path_factory) -> Path:
    """Units of the training set alone."""
    output = tmp_path_factory.mktemp("units") / "units_train"
    arguments = ["--data_dirs", str(corpus / "dump/train"), "--features", "mfcc"]
    arguments += ["--clusters", "8", "--device", "cpu", "--output", str(output)]
    assert make_units.main(arguments) == 0
    return output


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--units", "none"], "none/units.json: no such file; make the units again: ./run.sh"),
        (["--units", "{train_units}"], "no units of utterance 'dev2'"),
        (["--train_dirs", "{edited}"], "'train7' has 8000 samples, its units were made of 8200"),
        (["--init", "none"], "none: no such file"),
        (["--init", "{first}", "--set", "model.encoder.dim=32"], "encoder.dim 16, not 32"),
        (
            ["--init", "{first}", "--set", "model.front_end.channels=4"],
            "front_end.channels 3, not 4",
        ),
        (["--set", "model.front_end.num_mels=40"], "'num_mels': 20"),
        (["--set", "data.min_seconds=0.5"], "data: crop_seconds 0.4 are less than min_seconds 0.5"),
        (
            ["--set", "data.min_seconds=5", "--set", "data.crop_seconds=null"],
            "data.min_seconds: no utterance of 5 s or more, the longest, 'train7', has 0.51 s",
        ),
        (["--set", "data.min_seconds=0.35"], "the longest, 'dev2', has 0.33 s; lower it"),
        (
            ["--set", "model.mask.span_ms=320"],
            "'train2' has 7 frames, of which no span of 8 (320 ms)",
        ),
        (["--set", "model.feature_gradient=0"], "model: feature_gradient 0.0 is not above 0"),
        (
            ["--set", "model.inner_layers=[3]"],
            "model: inner_layers 3 is not at least 1 and at most",
        ),
        (["--set", "model.mask.probability=1.5"], "model.mask: probability 1.5 is not above 0 and"),
        (["--set", "model.head.name=sofmax"], "unknown 'sofmax' (did you mean 'softmax'?)"),
        (["--set", "model.decoder={}"], "unknown key 'model.decoder' (did you mean 'encoder'?)"),
        (["--set", "train.criterion=wer"], "train.criterion: 'wer' is not a metric"),
        (["--set", "train.frozen_parts=[hed]"], "(did you mean 'head'?)"),
        (["--dev_dirs", "none"], "none"),
    ],
)
def test_faults_are_one_line_exit_code_2_and_leave_all_as_it_was(
    corpus, first, train_units, arguments, tmp_path, capsys, change, message
):
    edited = tmp_path / "edited" / "train"
    shutil.copytree(corpus / "dump/train", edited)
    counts = (edited / "utt2num_samples").read_text().replace("train7 8200", "train7 8000")
    (edited / "utt2num_samples").write_text(counts)
    places = {"first": first, "train_units": train_units, "edited": edited}
    change = [str(places.get(word.strip("{}"), word)) for word in change]
    (tmp_path / "exp").mkdir()
    (tmp_path / "exp" / "model.json").write_text("{}")
    assert train_hubert.main([*arguments, "--fresh", *change]) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1
    names = sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith("."))
    assert names == ["edited", "exp"]
    kept = [path.name for path in (tmp_path / "exp").iterdir() if not path.name.startswith(".")]
    assert kept == ["model.json"]


def test_units_that_changed_are_refused_with_the_way_to_another_name(
    corpus, arguments, tmp_path, capsys
):
    arguments = [*arguments, "--set", "train.updates=1"]
    assert train_hubert.main(arguments) == 0
    others = tmp_path / "others"
    source = ("--features", "mfcc", "--clusters", "8", "--seed", "9")
    assert make_units.main(unit_arguments(corpus, others, *source)) == 0
    capsys.readouterr()
    assert train_hubert.main([*arguments, "--units", str(others)]) == 2
    error = capsys.readouterr().err
    assert "was trained with another configuration: units '" in error and error.count("\n") == 1
    assert "give the new one a name with --pretrain_tag NAME, or start anew with --fresh" in error


def test_an_experiment_from_before_a_key_goes_on_with_its_default(arguments, tmp_path, capsys):
    assert train_hubert.main([*arguments, "--set", "train.updates=2"]) == 0
    config = tmp_path / "exp" / "config.yaml"
    written = config.read_text()
    config.write_text("".join(x for x in written.splitlines(True) if "unmasked_weight" not in x))
    assert config.read_text() != written
    changed = ["--set", "train.updates=3", "--set", "model.unmasked_weight=0.5"]
    assert train_hubert.main([*arguments, *changed]) == 2
    assert "configuration: model.unmasked_weight 0.0 -> 0.5;" in capsys.readouterr().err
    assert train_hubert.main([*arguments, "--set", "train.updates=3"]) == 0
    assert "going on after update 2" in capsys.readouterr().out
    config.write_text(config.read_text().replace("unmasked_weight", "weight_unmasked"))
    assert train_hubert.main([*arguments, "--set", "train.updates=4"]) == 2
    assert "model.weight_unmasked 0.0 -> None" in capsys.readouterr().err


def start(words: list[str]) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.mark.slow
def test_a_process_that_was_killed_goes_on_to_the_bit(corpus, config, units, tmp_path):
    def words(expdir: Path) -> list[str]:
        changes = ["--set", "train.updates=150", "--set", "train.validate_every=50"]
        program = ["-m", "espnet_lite.bin.train_hubert"]
        return [*program, *arguments_of(corpus, config, units, expdir), *changes]

    straight, killed = tmp_path / "straight", tmp_path / "killed"
    process = start(words(straight))
    assert process.communicate(timeout=500) and process.returncode == 0
    process = start(words(killed))
    end = time.monotonic() + 300
    while not list((killed / "checkpoints").glob("update_*")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=300)
    assert not (killed / "model.safetensors").exists(), "ended too late to be a test"
    again = start(words(killed))
    output, error = again.communicate(timeout=500)
    assert again.returncode == 0 and "going on after update" in output, error
    assert_same_weights(straight, killed)
    assert curve(straight) == curve(killed)


@pytest.mark.slow
def test_two_processes_pre_train_what_one_does(corpus, config, units, first, tmp_path):
    together = tmp_path / "together"
    program = ["-m", "espnet_lite.bin.run_processes", "--nproc", "2", "train_hubert"]
    process = start([*program, *arguments_of(corpus, config, units, together)])
    _, error = process.communicate(timeout=500)
    assert process.returncode == 0, error
    assert json.loads((together / "model.json").read_text())["processes"] == 2
    one, two = curve(first), curve(together)
    assert len(one) == len(two) == 8
    for a, b in zip(one, two, strict=True):
        assert a.keys() == b.keys()
        for key, value in a.items():
            assert b[key] == (value if key == "kind" else pytest.approx(value, rel=1e-4)), key
