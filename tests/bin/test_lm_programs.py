"""train_lm, tune_decoding and decode_asr with a language model, as a user calls them."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from espnet_lite.bin import decode_asr, train_lm, tune_decoding
from espnet_lite.config import from_plain, read_yaml, to_plain
from espnet_lite.data.data_dir import Utterance, write_data_dir
from espnet_lite.lm.arpa import read_arpa
from espnet_lite.lm.packed import read_ngram, read_transformer
from espnet_lite.models.asr import AsrConfig, AsrModel
from espnet_lite.runtime.format import write_packed
from espnet_lite.text.tokenizer import train_tokenizer

TEXT = "u1 AB BA\nu2 BA AB AB\nu3 A\nu4 B A B A B A B A B\n"
DEV = "d1 AB AB\nd2 BA\n"
MODEL = {
    "front_end": {"name": "log_mel", "num_mels": 20, "channels": 4, "cmvn": "utterance"},
    "encoder": {"name": "transformer", "dim": 16, "layers": 1, "heads": 2, "feed_forward": 32},
    "decoder": None,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Texts, a tokenizer, an untrained recognizer and a small dev set."""
    folder = tmp_path_factory.mktemp("lm")
    (folder / "text").write_text(TEXT)
    (folder / "dev").mkdir()
    tokenizer = train_tokenizer("char", ["AB BA"])
    tokenizer.save(folder / "tokens")
    config = from_plain(AsrConfig, MODEL)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = AsrModel(config, vocab=tokenizer.vocab)
    torch.nn.init.normal_(model.ctc_head.weight, generator=torch.Generator().manual_seed(0))
    architecture = {**to_plain(config), "vocab": tokenizer.vocab}
    header = {
        "architecture": {k: architecture[k] for k in ("front_end", "encoder", "decoder", "vocab")},
        "sample_rate": 16000,
        "policy": {},
        "tokenizer": tokenizer.to_dict(),
        "record": {},
    }
    write_packed(folder / "asr.esp", model.state_dict(), header)
    utterances = []
    for number, line in enumerate(DEV.splitlines()):
        name, text = line.split(" ", 1)
        audio = 0.1 * np.random.default_rng(number).standard_normal(16000)
        soundfile.write(folder / f"{name}.wav", audio, 16000)
        utterances.append(
            Utterance(name, str(folder / f"{name}.wav"), None, None, text, "d", 16000)
        )
    write_data_dir(folder / "dev", utterances)
    return folder


def config(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def train(folder: Path, *more: str, yaml: str = "{order: 3}", name: str = "lm") -> int:
    return train_lm.main(
        [
            *("--config", config(folder, f"{name}.yaml", yaml), "--text", str(folder / "text")),
            *("--tokenizer", str(folder / "tokens"), "--expdir", str(folder / name), *more),
        ]
    )


@pytest.fixture(scope="module")
def ngram(folder) -> Path:
    dev = str(folder / "dev" / "text")
    assert train(folder, "--dev_text", dev, "--held_out_text", dev) == 0
    return folder / "lm" / "lm.esp"


def test_ngram_of_tokens(folder, ngram, capsys):
    record = json.loads((folder / "lm" / "model.json").read_text())
    assert record["text"] == {
        "files": [folder.name],
        "sentences": 4,
        "words": 15,
        "left_out_sentences": 0,
        "left_out_words": 0,
        "tokens": 31,
        "unknown": 0,
    }
    made, written = read_ngram(ngram), read_arpa(folder / "lm" / "lm.arpa.gz")
    assert made.words == ["<unk>", "<s>", "</s>", "<space>", "A", "B"]
    assert made.counts() == written.counts() == record["ngrams"]
    (dev,) = record["dev"].values()
    assert dev["per_word"] > dev["per_token"] > 1 and dev["words"] == 3
    assert train(folder, name="lm") == 0  # replaced
    assert "3-gram of tokens" in capsys.readouterr().out


def test_ngram_of_words_needs_no_tokens(folder):
    yaml = config(folder, "word.yaml", "{unit: word, order: 2, arpa: false}")
    expdir = folder / "word"
    arguments = ["--config", yaml, "--text", str(folder / "text"), "--expdir", str(expdir)]
    assert train_lm.main(arguments) == 0
    assert read_ngram(expdir / "lm.esp").words[3:] == ["A", "AB", "B", "BA"]
    assert not (expdir / "lm.arpa.gz").exists()


def test_decoding_with_it(folder, ngram, tmp_path):
    decode = [
        *("--model", str(folder / "asr.esp"), "--data_dir", str(folder / "dev"), "--set"),
        *("lm_weight=0.5", "--config", config(folder, "b.yaml", "{method: ctc_beam, nbest: 2}")),
        *("--output_dir", str(tmp_path / "out")),
    ]
    assert decode_asr.main([*decode, "--lm", str(ngram)]) == 0
    for line in (tmp_path / "out" / "nbest.jsonl").read_text().splitlines():
        for hyp in json.loads(line)["hyps"]:
            score = hyp["parts"]["ctc"] + 0.5 * hyp["parts"]["lm"]
            assert hyp["score"] == pytest.approx(score, abs=1e-3)
    told = json.loads((tmp_path / "out" / "decode.json").read_text())["lm"]
    assert (told["path"], told["family"]) == (str(ngram), "ngram")
    assert told["record"]["order"] == 3


def test_tuning_writes_table_and_config(folder, ngram, tmp_path, capsys):
    yaml = config(
        folder, "t.yaml", "# Why\nmethod: ctc_beam\nlm_weight: 0.5  # chosen\nbeam_size: 4\n"
    )
    arguments = [
        *("--model", str(folder / "asr.esp"), "--data_dir", str(folder / "dev"), "--config", yaml),
        *("--lm", str(ngram), "--grid", "lm_weight=0,0.5,2", "--grid", "penalty=0,1"),
        *("--output", str(tmp_path / "t.yaml"), "--table", str(tmp_path / "t.json")),
    ]
    assert tune_decoding.main(arguments) == 0
    out = capsys.readouterr().out
    assert "| lm_weight | 0 | 1 |\n| --- | ---: | ---: |\n| 0 | " in out
    told = json.loads((tmp_path / "t.json").read_text())
    assert len(told["tried"]) == 6 and told["words"] == 3
    best = min(told["tried"], key=lambda one: one["errors"])
    assert told["best"] == {key: best[key] for key in ("lm_weight", "penalty")}
    written = read_yaml(tmp_path / "t.yaml")
    assert written == {"method": "ctc_beam", "beam_size": 4, **told["best"]}
    assert (tmp_path / "t.yaml").read_text().startswith("# Why\n")


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ("lm_weight", "'lm_weight', expected KEY=NUMBER,NUMBER once"),
        ("lm_weight=a", "'lm_weight=a', expected"),
        ("lm_wait=1", "'lm_wait' is no number of method ctc_beam, expected one of: batch_seconds"),
        ("method=1", "'method' is no number"),
        ("lm_weight=11", "lm_weight 11.0 is not at least 0 and at most 10"),
    ],
)
def test_senseless_grids(folder, ngram, grid, message, capsys):
    yaml = config(folder, "g.yaml", "method: ctc_beam")
    arguments = [
        *("--model", str(folder / "asr.esp"), "--data_dir", str(folder / "dev"), "--config", yaml),
        *("--lm", str(ngram), "--grid", grid),
    ]
    assert tune_decoding.main(arguments) == 2
    assert message in capsys.readouterr().err


def test_faults(folder, ngram, tmp_path, capsys):
    for arguments, message in (
        (("--text", "none"), "none: no such file"),
        (("--set", "order=0"), "order 0 is not at least 1"),
        (("--set", "unit=letter"), "unit 'letter' is not one of token, word"),
        (("--set", "kind=rnn"), "unknown kind 'rnn', expected one of: ngram, transformer"),
        (
            ("--held_out_text", str(folder / "text")),
            "utterance 'u1' of a held-out set is in the text",
        ),
        (("--expdir", str(folder)), "holds 'asr.esp' and no lm.esp, so it is not replaced"),
        (("--tokenizer", str(ngram)), "the header has no key 'tokenizer'"),
    ):
        assert train(folder, *arguments, name="faulty") == 2
        assert message in capsys.readouterr().err
    assert not (folder / "faulty").exists()
    decode = [
        *("--model", str(folder / "asr.esp"), "--data_dir", str(folder / "dev"), "--config"),
        *(config(folder, "c.yaml", "{method: ctc_beam, lm_weight: 1}"), "--output_dir", "out"),
    ]
    for arguments, message in (
        ((), "method ctc_beam with lm_weight 1.0 needs a language model"),
        (("--lm", str(folder / "asr.esp")), "a packed file, but no language model"),
        (("--lm", "none.esp"), "none.esp: no such language model"),
    ):
        assert decode_asr.main([*decode, *arguments]) == 2
        assert message in capsys.readouterr().err


def test_transformer_on_the_trainer(folder, capsys):
    yaml = (
        "kind: transformer\nmodel: {dim: 8, heads: 2, feed_forward: 8, layers: 1}\n"
        "data: {batch_tokens: 40}\ntrain: {updates: 4, validate_every: 2, save_every: 2,"
        " log_every: 2, precision: fp32, threads: 1, schedule: {warmup_updates: 1}}\n"
    )
    dev = ("--dev_text", str(folder / "dev" / "text"))
    assert train(folder, *dev, yaml=yaml, name="transformer") == 0
    record = json.loads((folder / "transformer" / "model.json").read_text())
    assert record["updates"] == 4 and record["train_sentences"] == 4
    assert record["dev"]["dev"]["per_token"] == pytest.approx(np.exp(record["best"][0][0]), rel=0.1)
    _, tokens = read_transformer(folder / "transformer" / "lm.esp")
    assert tokens[2:-1] == ["<space>", "A", "B"]
    assert train(folder, *dev, "--set", "model.dim=16", yaml=yaml, name="transformer") == 2
    assert "--lm_tag NAME" in capsys.readouterr().err
    assert train(folder, yaml=yaml, name="other") == 2
    assert "no text to validate on" in capsys.readouterr().err
