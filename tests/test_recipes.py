"""Recipes from the corpus to RESULTS.md, tiny: every stage for real, a handful of updates."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STAGES = ["data", "dump", "tokens", "finetune", "quantize", "decode", "score"]
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

    def run(self, *arguments: str) -> str:
        config = self.folder / "train_asr_tiny.yaml"
        config.write_text(TINY_CONFIG)
        command = [str(ROOT / "egs" / self.name / "asr1" / "run.sh"), "--asr_config", str(config)]
        for option, place in (("datadir", "data"), ("dumpdir", "dump"), ("expdir", "exp")):
            command += [f"--{option}", str(self.folder / place)]
        command += ["--results_dir", str(self.folder), "--nj", "1", *self.options, *arguments]
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


def check_recipe(recipe: TinyRecipe, experiment: str) -> None:
    """Run all stages, then again (nothing to do), then decode the packed model alone."""
    folder = recipe.folder
    assert stages_run(recipe.run()) == STAGES

    exp = folder / "exp" / experiment
    for name in ("config.yaml", "train.jsonl", "model.json", "run.sh", "model_bf16.esp"):
        assert (exp / name).is_file(), name
    row = json.loads((folder / "results" / f"{experiment}_bf16_greedy.json").read_text())
    for name in ("dev", "test"):
        reference = folder / "data" / name / "text"
        scores = row["scores"][name]
        assert scores["utterances"] == len(reference.read_text().splitlines())
        assert scores["words"] == words_of(reference)
    assert f"{experiment}_bf16_greedy" in (folder / "RESULTS.md").read_text()

    assert recipe.run().count("up to date") == len(STAGES)

    model = folder / "given.esp"
    model.write_bytes((exp / "model_bf16.esp").read_bytes())
    out = recipe.run("--stage", "decode", "--model", str(model))
    assert stages_run(out) == ["decode", "score"]
    decoded = [exp / "decode_greedy_bf16", folder / "exp" / "packed_given" / "decode_greedy"]
    texts = [(path / "test" / "text").read_bytes() for path in decoded]
    assert texts[0] == texts[1] and texts[0]


def test_mini(tmp_path):
    sizes = "--train_utterances 24 --dev_utterances 4 --test_utterances 4"
    recipe = TinyRecipe("mini", tmp_path, ["--local_data_opts", sizes, "--token_type", "char"])
    check_recipe(recipe, "asr_tiny_char")


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


def tiny_an4(folder: Path) -> Path:
    """Return a corpus of seven utterances in AN4's layout, built by the tests of its stage 1."""
    path = ROOT / "tests" / "egs" / "test_an4_data.py"
    spec = importlib.util.spec_from_file_location("an4_data_of_tests", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.build_corpus(folder)
