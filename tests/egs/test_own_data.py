"""Own data: stage 1 of the recipe, and the way from a table to RESULTS.md in one or two commands."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from espnet_lite.bin import import_data
from espnet_lite.data.validate import validate_data_dir

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "egs" / "own" / "asr1"
STAGES = ["data", "dump", "tokens", "finetune", "quantize", "decode", "score", "profile"]


def build_corpus(folder: Path, *, speakers: int = 5, seconds: float = 1.0) -> Path:
    """Write a CSV table and noise for three utterances of each speaker; return the table."""
    folder.mkdir(parents=True)
    lines = ["path,text,speaker"]
    for i in range(3 * speakers):
        noise = np.random.default_rng(i).uniform(-0.1, 0.1, round(16000 * seconds))
        soundfile.write(folder / f"{i}.flac", noise, 16000)
        lines.append(f"{i}.flac,one two three,speaker {i // 3}")
    (folder / "table.csv").write_text("\n".join(lines))
    return folder / "table.csv"


def run(script: str, *options: object, code: int = 0) -> subprocess.CompletedProcess:
    """Run a script of the recipe in its folder."""
    done = subprocess.run(
        [script, *map(str, options)],
        cwd=RECIPE,
        env=os.environ | {"PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


def test_data_stage_makes_three_sets(tmp_path):
    table = build_corpus(tmp_path / "my corpus", seconds=0.1)
    done = run("local/data.sh", "--data_dir", tmp_path / "data", "--corpus", table)
    numbers = {
        name: validate_data_dir(tmp_path / "data" / name) for name in ("train", "dev", "test")
    }
    assert numbers == {"train": 9, "dev": 3, "test": 3}
    assert f"{tmp_path}/data/train: 9 utterances, 3 speakers, 27 words" in done.stdout


def test_options_of_import_data_pass_through(tmp_path):
    table = build_corpus(tmp_path / "corpus", speakers=1, seconds=0.1)
    options = ("--data_dir", tmp_path / "data", f"--corpus={table}")
    done = run("local/data.sh", *options, code=2)
    assert "1 speaker for 3 sets" in done.stderr and "--split_by utterance" in done.stderr
    run("local/data.sh", *options, "--split_by", "utterance", "--text_case", "upper")
    assert (tmp_path / "data/dev/text").read_text().endswith(" ONE TWO THREE\n")


def test_without_a_corpus_it_refuses_and_helps(tmp_path):
    done = run("local/data.sh", "--data_dir", tmp_path / "data", code=2)
    assert (
        f"no corpus and no {tmp_path}/data/train, expected --corpus FILE_OR_FOLDER" in done.stderr
    )
    assert not (tmp_path / "data").exists()
    done = run("local/data.sh", "--help")
    assert "Usage: local/data.sh --corpus FILE_OR_FOLDER" in done.stdout


def test_imported_sets_count_after_a_run_without_a_corpus(tmp_path):
    """A plain ./run.sh fails and leaves its mark; it must not stand in the way of the import."""
    places = ("--datadir", tmp_path / "data", "--stop_stage", "data")
    assert "expected --corpus FILE_OR_FOLDER" in run("./run.sh", *places, code=2).stderr
    table = build_corpus(tmp_path / "corpus", seconds=0.1)
    split = ["--split", "train=0.6", "dev=0.2", "test=0.2"]
    assert import_data.main([str(table), "--data_dir", str(tmp_path / "data"), *split]) == 0
    before = (tmp_path / "data/train/text").stat().st_mtime_ns
    done = run("./run.sh", *places)
    assert f"no --corpus: train dev test in {tmp_path}/data stay as they are" in done.stdout
    assert f"{tmp_path}/data/dev: valid, 3 utterances" in done.stdout
    assert (tmp_path / "data/train/text").stat().st_mtime_ns == before
    assert "stage 1 data: up to date" in run("./run.sh", *places).stdout
    utt2spk = tmp_path / "data/dev/utt2spk"
    utt2spk.write_text(utt2spk.read_text().replace(" speaker", " another"))
    assert "does not begin with its speaker 'another" in run("./run.sh", *places, code=2).stderr


def test_sets_of_other_names(tmp_path):
    table = build_corpus(tmp_path / "corpus", seconds=0.1)
    header, *rows = table.read_text().splitlines()
    rows = [f"{row},{name}" for row, name in zip(rows, "aaaabbbcccddeee", strict=True)]
    table.write_text("\n".join([f"{header},part", *rows]))
    options = ("--datadir", tmp_path / "data", "--stop_stage", "data", "--corpus", table)
    options += ("--local_data_opts", "--set_column part", "--train_sets", "a b", "--dev_sets", "c")
    run("./run.sh", *options, "--test_sets", "d e")
    numbers = {name: validate_data_dir(tmp_path / "data" / name) for name in "abcde"}
    assert numbers == {"a": 4, "b": 3, "c": 3, "d": 2, "e": 3}
    err = run("./run.sh", *options, "--test_sets", "d f", code=2).stderr
    assert f"{table}: no set 'f' in it, and none was made" in err


def run_recipe(folder: Path, *options: object) -> list[str]:
    """Run the recipe with two updates, its output below `folder`; return the stages it ran."""
    places = [f"--{name}={folder / name[:-3]}" for name in ("datadir", "dumpdir", "expdir")]
    tiny = [
        "train.updates=2",
        "train.threads=1",
        "model.encoder.layers=1",
        "model.decoder.layers=1",
    ]
    tiny += ["model.encoder.dim=32", "model.inter_ctc_layers=[]", "data.batch_seconds=5"]
    settings = [word for value in tiny for word in ("--set", value)]
    done = run("./run.sh", *places, f"--results_dir={folder}", "--nj", 1, *settings, *options)
    return re.findall(r"^stage \d+ (\w+): \d+ s$", done.stdout, flags=re.M)


@pytest.mark.slow
def test_one_command(tmp_path):
    table = build_corpus(tmp_path / "corpus")
    assert run_recipe(tmp_path / "out", "--corpus", table) == STAGES
    results = (tmp_path / "out" / "RESULTS.md").read_text()
    assert "asr_char_bf16_greedy" in results and "WER dev" in results


@pytest.mark.slow
def test_two_commands(tmp_path):
    table = build_corpus(tmp_path / "corpus")
    data = tmp_path / "out" / "data"
    split = ["--split", "train=0.6", "dev=0.2", "test=0.2"]
    assert import_data.main([str(table), "--data_dir", str(data), *split]) == 0
    assert run_recipe(tmp_path / "out", "--stage", "dump") == STAGES[1:]
    assert "asr_char_bf16_greedy" in (tmp_path / "out" / "RESULTS.md").read_text()
