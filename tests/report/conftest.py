"""A small recipe folder as its stages leave it: two rows on dev and test, a training, units, audio."""

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from espnet_lite.bin import score_asr, write_results
from espnet_lite.features.frame_grid import FrameGrid
from espnet_lite.runtime.format import file_sha256, write_packed
from espnet_lite.text.tokenizer import train_tokenizer
from espnet_lite.units.store import write_store

MARKUP = (
    "</script><script>console.error('ran')</script> <img src=x onerror=console.error('ran')> <!--"
)
# utterance: (reference, hypothesis of the first row, of the second)
DEV = {
    "anna-1": ("the cat sat", "the bat sat", "the cat sat"),
    "anna-2": ("on a mat", "a mat", "on a mat"),
    "bert-1": ("one two three", "one two three four", "one two"),
    "bert-2": ("two", "two", "two"),
    "bert-3": (MARKUP, MARKUP.replace("x", "y", 1), MARKUP),
}
TEST = {
    "cleo-1": ("深い 海", "深い 空", "深い 海"),
    "cleo-2": ("\u05e9\u05dc\u05d5\u05dd & <b>", "\u05e9\u05dc\u05d5\u05dd &", "&amp; <b>"),
}
RATE = 16000


@dataclass(frozen=True)
class Recipe:
    """Where the parts of the recipe lie, and what it was made of.

    Attributes:
        folder: has dump/, exp/, results/, models/.
        sets: `{set: {utterance: (reference, hypothesis of row "first", of row "second")}}`.
        markup: a reference that would be run if it were ever taken for HTML.
    """

    folder: Path
    sets: dict[str, dict[str, tuple[str, str, str]]]
    markup: str = MARKUP

    @property
    def exp(self) -> Path:
        return self.folder / "exp"

    @property
    def page(self) -> Path:
        return self.exp / "report.html"


def make_data(folder: Path, utterances: dict) -> None:
    folder.mkdir(parents=True)
    tables = {"wav.scp": "", "text": "", "utt2spk": "", "utt2num_samples": "", "utt2dur": ""}
    for i, (name, texts) in enumerate(sorted(utterances.items())):
        samples = 0.1 * np.sin(np.arange(RATE // 4) * (0.05 + 0.01 * i))
        path = folder.parent / "the audio" / f"{name}.wav"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, samples, RATE, subtype="PCM_16")
        tables["wav.scp"] += f"{name} {path}\n"
        tables["text"] += f"{name} {texts[0]}\n"
        tables["utt2spk"] += f"{name} {name.partition('-')[0]}\n"
        tables["utt2num_samples"] += f"{name} {len(samples)}\n"
        tables["utt2dur"] += f"{name} {len(samples) / RATE}\n"
    for table, text in tables.items():
        (folder / table).write_text(text, encoding="utf-8")


def make_row(recipe: Path, name: str, *, which: int) -> None:
    """Leave what decoding and scoring leave of row `name`; `which` of the hypotheses are its."""
    model = recipe / "models" / f"{name}.esp"
    tokenizer = train_tokenizer("char", ["the cat sat on a mat"])
    record = {"parameters": 6, "minutes": 2.5, "updates": 10, "seed": 1, "command": "train <it>"}
    header = {"tokenizer": tokenizer.to_dict(), "parameters": 6 + which, "record": record}
    write_packed(model, {"w": torch.full((2, 3), float(which))}, header)
    pairs = []
    for set_name, utterances in (("dev", DEV), ("test", TEST)):
        folder = recipe / "exp" / f"packed_{name}" / "decode_greedy" / set_name
        folder.mkdir(parents=True)
        data_dir = recipe / "dump" / set_name
        decoded = {
            "rtf": 0.01,
            "config": {"method": "ctc_greedy"},
            "environment": {"cpu": "Some CPU"},
            "model": {"sha256": file_sha256(model)},
            "data_dir": str(data_dir),
        }
        (folder / "decode.json").write_text(json.dumps(decoded))
        hypotheses = [f"{one} {texts[which]}\n" for one, texts in sorted(utterances.items())]
        (folder / "text").write_text("".join(hypotheses), encoding="utf-8")
        arguments = ["--data_dir", data_dir, "--hyp", folder / "text", "--tokenizer_of", model]
        assert score_asr.main([*map(str, arguments), "--output_dir", str(folder / "score")]) == 0
        pairs.append(f"{set_name}={folder}")
    arguments = ["--row", name, "--model", str(model), "--results_dir", str(recipe)]
    assert write_results.main([*arguments, "--decode_dirs", *pairs, "--title", "a <b>/asr1"]) == 0


@pytest.fixture(scope="session")
def recipe(tmp_path_factory) -> Recipe:
    """The recipe; session-wide: a test that changes files copies it."""
    folder = tmp_path_factory.mktemp("recipe")
    make_data(folder / "dump" / "dev", DEV)
    make_data(folder / "dump" / "test", TEST)
    make_row(folder, "first", which=1)
    make_row(folder, "second", which=2)
    training = folder / "exp" / "asr_tiny"
    training.mkdir()
    lines = [
        {
            "kind": "train",
            "update": update,
            "minutes": update / 10,
            "loss": 9 / update,
            "loss_ctc": 3,
        }
        for update in range(1, 9)
    ]
    lines.append({"kind": "dev", "update": 4, "minutes": 0.4, "loss": 3.0, "ctc_error": 0.25})
    (training / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    analyses = folder / "results" / "quantization_errors"
    analyses.mkdir()
    units = [
        {
            "name": f"encoder.blocks.{i}.attention",
            "own": 0.2,
            "propagated": 0.1 * i,
            "interaction": 0,
        }
        for i in range(3)
    ]
    analysis = {"name": "tiny_w1a8", "encoder": "transformer", "units": units}
    (analyses / "tiny_w1a8.json").write_text(json.dumps(analysis))
    write_store(
        folder / "exp" / "units_tiny",
        [([b"u1"], np.array([4 * 160 + 240]), np.array([4]), np.array([2, 0, 2, 1]))],
        centroids=torch.zeros(4, 2),
        grid=FrameGrid(RATE, 400, 160),
        description={"features": {"name": "mfcc"}},
    )
    return Recipe(folder, {"dev": DEV, "test": TEST})


@pytest.fixture(scope="session")
def chromium_module():
    """The module chromium.py beside this file."""
    path = Path(__file__).with_name("chromium.py")
    spec = importlib.util.spec_from_file_location("report_chromium", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
