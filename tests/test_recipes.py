"""Recipes from the corpus to RESULTS.md, tiny: every stage for real, a handful of updates."""

import importlib.util
import itertools
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).parents[1]
STAGES = ["data", "dump", "tokens", "finetune", "quantize", "decode", "score", "profile"]
PRETRAINING = ["units", "pretrain"]
TINY_PRETRAIN_CONFIG = """
model:
  encoder: {name: transformer, layers: 1, dim: 32, heads: 2, feed_forward: 64}
  front_end: {name: log_mel, spec_augment: {frequency_masks: 0, time_masks: 0}}
  head: {name: cosine, dim: 16}
data: {batch_seconds: 10, min_seconds: 0.4}
train: {updates: 4, accumulate: 2, validate_every: 2, save_every: 2, average_best: 1, log_every: 1}
"""
TINY_CONFIG = """
model:
  encoder: {name: transformer, layers: 1, dim: 32, heads: 2, feed_forward: 64}
  decoder: {name: transformer, layers: 1, heads: 2, feed_forward: 64}
data: {batch_seconds: 20}
train: {updates: 4, validate_every: 2, save_every: 2, average_best: 2, log_every: 1}
"""


@dataclass
class TinyRecipe:
    """A recipe of egs/ whose every output goes to `folder`."""

    name: str
    folder: Path
    options: list[str]
    eval_sets: tuple[str, ...] = ("dev", "test")  # that are decoded and scored
    iterations: int = 0  # of pre-training

    def stages(self) -> list[str]:
        """Return the stages that run, in their order."""
        names = [
            name if number == 1 else f"{name}_{number}"
            for number in range(1, self.iterations + 1)
            for name in PRETRAINING
        ]
        return [*STAGES[:3], *names, *STAGES[3:]]

    def run(self, *arguments: str) -> str:
        config = self.folder / "train_asr_tiny.yaml"
        config.write_text(TINY_CONFIG)
        pretrain = self.folder / "pretrain_tiny.yaml"
        pretrain.write_text(TINY_PRETRAIN_CONFIG)
        command = [str(ROOT / "egs" / self.name / "asr1" / "run.sh"), "--asr_config", str(config)]
        for option, place in (("datadir", "data"), ("dumpdir", "dump"), ("expdir", "exp")):
            command += [f"--{option}", str(self.folder / place)]
        if self.iterations:
            iterations = ",".join(str(i + 1) for i in range(self.iterations))
            command += ["--pretrain_config", str(pretrain), "--iters", iterations]
            command += ["--clusters", "10,12", "--unit_layers", "1", "--sample_megabytes", "20"]
        command += ["--results_dir", str(self.folder), "--nj", "1"]
        command += ["--profile_threads", "1", "--profile_runs", "1", *self.options, *arguments]
        done = subprocess.run(
            command,
            env={**os.environ, "PYTHON": sys.executable},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def stages_run(out: str) -> list[str]:
    return re.findall(r"^stage \d+ (\w+): \d+ s$", out, flags=re.M)


def words_of(text: Path) -> int:
    return sum(len(line.split()) - 1 for line in text.read_text(encoding="utf-8").splitlines())


def check_recipe(recipe: TinyRecipe, experiment: str) -> str:
    """Run all stages, then again (nothing to do), then decode the packed model alone.

    Returns:
        What the first run said.
    """
    folder = recipe.folder
    said = recipe.run()
    assert stages_run(said) == recipe.stages()

    exp = folder / "exp" / experiment
    for name in ("config.yaml", "train.jsonl", "model.json", "run.sh", "model_bf16.esp"):
        assert (exp / name).is_file(), name
    recipe_has_phones = experiment.endswith("_phone")
    row = json.loads((folder / "results" / f"{experiment}_bf16_greedy.json").read_text())
    for name in recipe.eval_sets:
        reference = folder / "data" / name / "text"
        scores = row["scores"][name]
        kind = "per" if recipe_has_phones else "wer"
        others = {"per", "wer"} - {kind}
        assert not any(scores.get(other) for other in others)
        assert 0 < scores[kind]["percent"]["err"] <= 200
        assert scores["utterances"] == len(reference.read_text().splitlines())
        if kind == "wer":
            assert scores["words"] == words_of(reference)
    page = (folder / "RESULTS.md").read_text()
    assert f"{experiment}_bf16_greedy" in page
    profile = json.loads((folder / "results" / "profile" / f"{experiment}_bf16.json").read_text())
    assert profile["model"]["sha256"] == row["model"]["sha256"]
    assert 0 < profile["parameters"]["total"] <= row["model"]["parameters"]
    report = folder / "exp" / "report.html"
    assert said.rstrip().splitlines()[-2] == str(report)  # the last line is the stage's seconds
    assert f"{experiment}_bf16_greedy" in report.read_text(encoding="utf-8")
    assert f"{profile['macs']['total'] / 1e9:.1f} |" in page.partition("## Efficiency")[2]

    assert recipe.run().count("up to date") == len(recipe.stages())

    model = folder / "given.esp"
    model.write_bytes((exp / "model_bf16.esp").read_bytes())
    out = recipe.run("--stage", "decode", "--model", str(model))
    assert stages_run(out) == ["decode", "score", "profile"]
    decoded = [exp / "decode_greedy_bf16", folder / "exp" / "packed_given" / "decode_greedy"]
    texts = [(path / recipe.eval_sets[-1] / "text").read_bytes() for path in decoded]
    assert texts[0] == texts[1] and texts[0]
    return said


def test_mini(tmp_path):
    sizes = "--train_utterances 24 --dev_utterances 4 --test_utterances 4"
    options = ["--local_data_opts", sizes, "--token_type", "char"]
    recipe = TinyRecipe("mini", tmp_path, options, iterations=1)
    check_recipe(recipe, "asr_tiny_char_from_tiny_it1")
    record = json.loads((tmp_path / "exp/asr_tiny_char_from_tiny_it1/model.json").read_text())
    assert record["pretrained"]["clusters"] == 10 and record["pretrained"]["updates"] == 4


@pytest.mark.slow
def test_an4(tmp_path):
    recipe = TinyRecipe(
        "an4",
        tmp_path,
        [
            *("--corpus", str(tiny_an4(tmp_path / "the corpus"))),
            *("--local_data_opts", "--expect_official no"),
            *("--token_type", "bpe", "--vocab_size", "16"),
        ],
    )
    check_recipe(recipe, "asr_tiny_bpe16")


@pytest.mark.slow
def test_an4_by_phones_from_archives_in_noise(tmp_path):
    """AN4's layout again, with all that a recipe can choose about data and tokens."""
    corpus = tiny_an4(tmp_path / "corpus")
    noise = tmp_path / "noise"
    noise.mkdir()
    samples = np.random.default_rng(0).uniform(-0.1, 0.1, 24000)
    soundfile.write(noise / "babble.wav", samples, 16000, subtype="PCM_16")
    lexicon = tmp_path / "tiny.dic"
    words = {word for path in (corpus / "etc").glob("*.transcription") for word in words_in(path)}
    lexicon.write_text("".join(f"{word} {' '.join(word)}\n" for word in sorted(words)))
    recipe = TinyRecipe(
        "an4",
        tmp_path,
        [
            *("--corpus", str(corpus), "--local_data_opts", "--expect_official no"),
            *("--token_type", "phone", "--lexicon", str(lexicon)),
            *("--audio_format", "ark", "--noise_dir", str(noise)),
        ],
    )
    check_recipe(recipe, "asr_tiny_phone")
    scp = (tmp_path / "dump" / "train" / "wav.scp").read_text().splitlines()
    assert all(re.search(r"\.ark:\d+$", line) for line in scp)
    config = (tmp_path / "exp" / "asr_tiny_phone" / "config.yaml").read_text()
    assert f"noise_dir: {noise}" in config
    assert "PER" in (tmp_path / "RESULTS.md").read_text()


@pytest.mark.slow
def test_librispeech(tmp_path):
    recipe = TinyRecipe(
        "librispeech",
        tmp_path,
        [
            *("--corpus", str(tiny_librispeech(tmp_path / "LibriSpeech"))),
            *("--local_data_opts", "--expect_official no"),
            *("--train_sets", "train-clean-100 train-own"),
            *("--token_type", "bpe", "--vocab_size", "20"),
        ],
        eval_sets=("dev-clean", "dev-other", "test-clean", "test-other"),
    )
    check_recipe(recipe, "asr_tiny_bpe20")
    model = ["--model", str(tmp_path / "given.esp"), "--corpus", str(tmp_path / "LibriSpeech")]
    elsewhere = TinyRecipe(
        "librispeech",
        tmp_path / "elsewhere",
        [*model, "--local_data_opts", "--expect_official no", "--dev_sets", "dev-clean"],
    )
    elsewhere.folder.mkdir()
    assert stages_run(elsewhere.run("--test_sets", "train-own")) == [
        *("data", "dump", "decode", "score", "profile")
    ]
    prepared = sorted(path.name for path in (elsewhere.folder / "dump").glob("[!.]*"))
    assert prepared == ["dev-clean", "train-own"]  # no set to train on


@pytest.mark.slow
def test_mini_librispeech_with_two_processes(tmp_path):
    recipe = TinyRecipe(
        "mini_librispeech",
        tmp_path,
        [
            *("--corpus", str(tiny_librispeech(tmp_path / "LibriSpeech"))),
            *("--local_data_opts", "--expect_official no"),
            *("--pretrain_sets", "train-clean-5 train-clean-more"),
            *("--pretrain_dev_sets", "train-own", "--train_sets", "train-clean-5"),
            *("--nproc", "2", "--set", "train.accumulate=2", "--set", "train.threads=1"),
        ],
        eval_sets=("dev-clean-part", "test-clean-part"),
        iterations=2,
    )
    said = check_recipe(recipe, "asr_tiny_char_from_tiny_it2")
    for program in ("train_asr", "train_hubert"):
        assert f"run_processes --nproc 2 {program}" in said
    for name in ("asr_tiny_char_from_tiny_it2", "pretrain_tiny_it2"):
        record = json.loads((tmp_path / "exp" / name / "model.json").read_text())
        assert record["processes"] == 2
    units = json.loads((tmp_path / "exp/units_pretrain_tiny_it2/units.json").read_text())
    assert units["clusters"] == 12 and units["shift_samples"] == 640  # of the model, at 40 ms

    scratch = TinyRecipe(recipe.name, tmp_path, [*recipe.options, "--pretrained", "none"])
    scratch.eval_sets = recipe.eval_sets
    said = scratch.run("--stage", "finetune", "--stop_stage", "finetune")
    assert stages_run(said) == ["finetune"] and (tmp_path / "exp/asr_tiny_char").is_dir()


def words_in(transcription: Path) -> list[str]:
    return re.findall(r"[A-Z']+(?![^(]*\))", transcription.read_text())


def tiny_an4(folder: Path) -> Path:
    """Return a corpus of seven utterances in AN4's layout, built by the tests of its stage 1."""
    return module_of_tests("an4").build_corpus(folder)


def tiny_librispeech(folder: Path) -> Path:
    """Return a corpus in LibriSpeech's layout, with the sets that its two recipes know."""
    module = module_of_tests("librispeech")
    train, dev = module.LINES["train-own"], module.LINES["dev-clean"]
    names = ("train-own", "train-clean-100", "train-clean-5", "train-clean-more")
    readers = itertools.count(200)
    sets = {name: {f"{next(readers)}-1": texts for texts in train.values()} for name in names}
    for name in ("dev-clean", "dev-other", "test-clean", "test-other"):
        sets[name] = {f"{next(readers)}-1": texts for texts in dev.values()}
    for name in ("dev-clean-part", "test-clean-part"):
        sets[name] = {f"{next(readers)}-1": texts for texts in dev.values()}
    return module.build_corpus(folder, sets=sets)


def module_of_tests(corpus: str) -> ModuleType:
    """Return the module that tests stage 1 of a corpus."""
    path = ROOT / "tests" / "egs" / f"test_{corpus}_data.py"
    spec = importlib.util.spec_from_file_location(f"{corpus}_data_of_tests", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
