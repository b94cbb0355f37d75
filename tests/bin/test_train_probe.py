"""train_probe as a program: on tones that stand for phones, and what it refuses."""

import json

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file

from espnet_lite.bin import train_probe
from espnet_lite.config import dump_yaml, from_plain, to_plain
from espnet_lite.models.hubert import HubertConfig, HubertModel
from espnet_lite.models.pretrained import read_pretrained, write_encoder
from espnet_lite.text.tokenizer import train_tokenizer

HZ = {"AH": 300.0, "S": 2500.0, "T": 1000.0}  # of the tone that stands for a phone
LETTERS = {"AH": "a", "S": "s", "T": "t"}
MODEL = {
    "front_end": {"name": "log_mel", "num_mels": 20, "channels": 3, "cmvn": "utterance"},
    "encoder": {"name": "transformer", "dim": 16, "layers": 2, "heads": 2, "feed_forward": 16},
}
TEXTGRID = """\
File type = "ooTextFile"
Object class = "TextGrid"

0
{end}
<exists>
1
"IntervalTier"
"phones"
0
{end}
{count}
{intervals}
"""


def write_utterance(rng, folder, name: str) -> tuple[int, str]:
    """Write tones of 0.2 to 0.4 s between pauses, and their alignment; return samples and text."""
    parts, intervals, said, place = [], [], [], 0
    for number in range(9):
        phone = "" if number % 2 == 0 else str(rng.choice(list(HZ)))
        count = int(rng.integers(3200, 6400))
        tone = np.sin(2 * np.pi * HZ[phone] * np.arange(count) / 16000) if phone else 0.0
        parts.append(0.3 * tone + rng.normal(scale=0.01, size=count))
        label = f"{phone}1" if phone == "AH" else phone or "sp"
        intervals.append(f'{place / 16000}\n{(place + count) / 16000}\n"{label}"')
        place += count
        said += [LETTERS[phone]] if phone else []
    soundfile.write(folder / f"{name}.wav", np.concatenate(parts), 16000, subtype="PCM_16")
    text = TEXTGRID.format(end=place / 16000, count=9, intervals="\n".join(intervals))
    (folder.parent / "alignments" / f"{name}.TextGrid").write_text(text)
    return place, "".join(said)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Return a folder with data of four speakers, alignments, tokens and a pre-training."""
    root = tmp_path_factory.mktemp("tones")
    rng = np.random.default_rng(5)
    (root / "alignments").mkdir()
    texts = []
    tables = {"wav.scp": "", "text": "", "utt2spk": "", "utt2num_samples": ""}
    (root / "data").mkdir()
    for speaker in "abcd":
        for number in range(4):
            name = f"{speaker}-{number}"
            samples, text = write_utterance(rng, root / "data", name)
            tables["wav.scp"] += f"{name} {root / 'data' / name}.wav\n"
            tables["text"] += f"{name} {text}\n"
            tables["utt2spk"] += f"{name} {speaker}\n"
            tables["utt2num_samples"] += f"{name} {samples}\n"
            texts.append(text)
    (root / "again").mkdir()  # the same audio by other names
    for table, lines in tables.items():
        (root / "data" / table).write_text(lines)
        other = lines.replace("\n", "\nx").removesuffix("x")
        if table == "utt2spk":
            other = other.replace(" ", " x")
        (root / "again" / table).write_text(f"x{other}")
    train_tokenizer("char", texts).save(root / "tokens")
    model = HubertModel(from_plain(HubertConfig, MODEL), clusters=3)
    (root / "hubert").mkdir()
    (root / "hubert/config.yaml").write_text(dump_yaml({"model": to_plain(model.config)}))
    save_file(model.state_dict(), root / "hubert/model.safetensors")
    write_encoder(root / "encoder.safetensors", *read_pretrained(root / "hubert"))
    (root / "pretrain.yaml").write_text(dump_yaml({"model": MODEL}))
    return root


@pytest.fixture
def run(corpus, tmp_path):
    """Return a function that runs the program on the corpus and returns its exit code."""

    def call(*options: str, upstream: str = "fbank", test=("--test_speakers", "c", "d")) -> int:
        upstream = upstream.replace("ROOT", str(corpus))
        return train_probe.main(
            [
                *("--upstream", upstream, "--data_dirs", str(corpus / "data"), *test),
                *("--alignments", str(corpus / "alignments"), "--output", str(tmp_path / "probe")),
                *("--updates", "60", "--batch_seconds", "10", "--device", "cpu", *options),
            ]
        )

    return call


@pytest.fixture
def result(tmp_path):
    return lambda: json.loads((tmp_path / "probe/probe.json").read_text())


def test_filterbanks_tell_tones_of_speakers_that_were_not_trained_on(run, result, capsys):
    assert run("--lr", "0.05") == 0
    found = result()
    assert json.loads(capsys.readouterr().out) == found
    # Of 40-ms frames of 200-ms tones some lie half in a pause.
    assert found["accuracy"] > 0.9 and found["accuracy_speech"] > 0.85
    assert 0.45 < found["silence"] < 0.65  # five of nine intervals
    assert found["classes"] == 4 and found["layer_weights"] == [1.0]
    assert (found["frame_ms"], found["dim"]) == (40.0, 320)
    for name in ("train", "test"):
        assert found[name]["utterances"] == 8 and found[name]["speakers"] == 2
    assert run("--lr", "0.05", "--fresh", upstream="fbank:20") == 0
    assert (result()["frame_ms"], result()["dim"]) == (20.0, 160)


@pytest.mark.parametrize("form", ["ROOT/hubert", "ROOT/encoder.safetensors"])
def test_an_encoder_and_its_twin_of_random_weights(run, result, corpus, tmp_path, form):
    before = load_file(corpus / "hubert/model.safetensors")
    assert run(upstream=form) == 0
    trained = result()
    assert len(trained["layer_weights"]) == 3 and trained["dim"] == 16
    assert sum(trained["layer_weights"]) == pytest.approx(1.0, abs=1e-4)
    kept = load_file(tmp_path / "probe/model.safetensors")
    assert set(kept) == {"layer_sum.logits", "head.weight", "head.bias"}
    after = load_file(corpus / "hubert/model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)
    twins = {}
    for upstream, seed in (
        (f"random:{form}", 1),
        ("random:ROOT/pretrain.yaml", 1),
        (f"random:{form}", 2),
    ):
        assert run("--fresh", "--seed", str(seed), upstream=upstream) == 0
        twins[upstream, seed] = result()["loss"]
    # The same architecture, normalization and seed are the same model, from wherever they are read.
    assert twins[f"random:{form}", 1] == twins["random:ROOT/pretrain.yaml", 1]
    assert len({trained["loss"], *twins.values()}) == 3


def test_ctc_tells_the_letters_it_was_trained_on(run, result, corpus):
    options = ("--task", "ctc", "--tokenizer", str(corpus / "tokens"), "--lr", "0.05")
    assert run(*options, "--updates", "200", test=("--test_dirs", str(corpus / "again"))) == 0
    assert result()["token_error"] < 0.05
    assert result()["train"] == result()["test"]


def test_the_same_again_is_done_and_another_is_refused(run, result, capsys):
    assert run() == 0
    first = result()
    assert run() == 0
    second = result()
    timed = {"minutes": 0, "date": ""}
    assert {**first, **timed} == {**second, **timed}
    capsys.readouterr()
    assert run("--lr", "0.1") == 2
    assert "train.optimizer.lr 0.005 -> 0.1" in capsys.readouterr().err


def test_utterances_without_alignment_are_left_out_and_told(run, result, corpus, tmp_path, capsys):
    folder = tmp_path / "fewer"
    folder.mkdir()
    for path in sorted((corpus / "alignments").glob("*.TextGrid"))[1:]:
        (folder / path.name).write_text(path.read_text())
    assert run("--alignments", str(folder)) == 0
    assert "7 of 8 utterances to train on have alignments" in capsys.readouterr().out
    assert result()["train"]["utterances"] == 7 and result()["test"]["utterances"] == 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"upstream": "ROOT/none"}, "none: no such file"),
        ({"upstream": "fbank:25"}, "--upstream: 'fbank:25' has no frames of 10, 20, … ms"),
        ({"upstream": "random:ROOT/none.yaml"}, "none.yaml: no such file"),
        ({"options": ["--task", "words"]}, "task 'words' is not one of phones, ctc"),
        ({"options": ["--task", "ctc"]}, "--task ctc needs tokens; name make_tokens' folder"),
        ({"options": ["--alignments", "none"]}, "none: no such folder"),
        ({"options": ["--updates", "0"]}, "updates 0 is not at least 1"),
        ({"options": ["--lr", "-1"]}, "lr -1.0 is not above 0"),
        ({"test": []}, "expected one of --test_dirs and --test_speakers, found neither"),
        ({"test": ["--test_speakers", "x"]}, "--test_speakers: no utterance of speaker 'x'"),
        ({"test": ["--test_speakers", *"abcd"]}, "no speaker is left to train on"),
        ({"test": ["--test_dirs", "ROOT/data"]}, "speakers to train and to test on: a, b, c, d"),
    ],
)
def test_faults_are_one_line_and_leave_no_folder(run, corpus, tmp_path, capsys, options, message):
    words = [word.replace("ROOT", str(corpus)) for word in options.pop("options", [])]
    if "test" in options:
        options["test"] = [word.replace("ROOT", str(corpus)) for word in options["test"]]
    assert run(*words, **options) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1
    assert not (tmp_path / "probe").exists()


def test_global_statistics_of_a_random_model_are_asked_for(run, corpus, tmp_path, capsys):
    plain = {"model": {**MODEL, "front_end": {**MODEL["front_end"], "cmvn": "global"}}}
    (tmp_path / "pretrain.yaml").write_text(dump_yaml(plain))
    assert run(upstream=f"random:{tmp_path / 'pretrain.yaml'}") == 2
    assert "cmvn is global, but no statistics were given; name --cmvn" in capsys.readouterr().err
