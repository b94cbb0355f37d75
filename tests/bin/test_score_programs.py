"""score_asr and write_results as programs: files in, files out, one line for a fault."""

import json
from pathlib import Path

import pytest
import torch

from espnet_lite.bin import score_asr, write_results
from espnet_lite.runtime.format import file_sha256, write_packed
from espnet_lite.text.tokenizer import train_tokenizer

TEXT = "s1-1 the cat sat\ns1-2 on a mat\ns2-1 a cat\n"
HYP = "s1-1 the bat sat\ns1-2 on a mat\ns2-1\n"


@pytest.fixture
def data(tmp_path):
    """Return a folder with a data directory, hypotheses, a tokenizer folder and a packed model."""
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "text").write_text(TEXT)
    (tmp_path / "test" / "utt2spk").write_text("s1-1 s1\ns1-2 s1\ns2-1 s2\n")
    (tmp_path / "hyp").write_text(HYP)
    tokenizer = train_tokenizer("char", ["the cat sat on a mat <n>"], nlsyms=["<n>"])
    tokenizer.save(tmp_path / "tokens")
    header = {
        "tokenizer": tokenizer.to_dict(),
        "parameters": 6,
        "record": {"parameters": 6, "minutes": 2.5, "updates": 10, "seed": 1},
    }
    write_packed(tmp_path / "exp" / "x.esp", {"w": torch.zeros(2, 3)}, header)
    return tmp_path


def score(data: Path, *more: str, tokenizer: str = "tokens", output: str = "score") -> int:
    arguments = ["--data_dir", data / "test", "--hyp", data / "hyp", "--output_dir", data / output]
    arguments += ["--tokenizer-of", data / tokenizer, *more]
    return score_asr.main([str(argument) for argument in arguments])


KIND_FILES = {"ref.trn", "hyp.trn", "result.txt"}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_score_writes_its_folder_and_ends_with_the_summary(data, capsys):
    assert score(data) == 0
    # 8 words: 1 substituted, 2 deleted. 24 characters (with spaces): 1 substituted, 5 deleted
    lines = capsys.readouterr().out.splitlines()[-4:]
    assert [line[:65] for line in lines] == [
        "|     | # Snt  # Wrd |  Corr    Sub    Del    Ins    Err  S.Err |",
        "| WER |     3      8 |  62.5   12.5   25.0    0.0   37.5   66.7 |",
        "| CER |     3     24 |  75.0    4.2   20.8    0.0   25.0   66.7 |",
        "| TER |     3     24 |  75.0    4.2   20.8    0.0   25.0   66.7 |",
    ]
    folder = data / "score"
    plain = json.loads((folder / "score.json").read_text())
    assert (plain["utterances"], plain["words"], plain["missing"]) == (3, 8, [])
    assert plain["ter"]["counts"]["del"] == 5
    assert "| Sum/Avg|    3      8 | 62.5 " in (folder / "wer" / "result.txt").read_text()
    assert "HYP:  the bat sat \n" in (folder / "errors.txt").read_text()
    assert (folder / "wer" / "hyp.trn").read_text().endswith("\n(s2-s2-1)\n")
    assert names(folder) == {
        *("score.json", "utterances.jsonl", "errors.txt"),
        *("wer", "cer", "ter"),
    }
    for kind in ("wer", "cer", "ter"):
        assert names(folder / kind) == KIND_FILES


def test_every_utterance_has_a_line_with_its_alignment(data):
    assert score(data) == 0
    lines = (data / "score" / "utterances.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"id": "s1-1", "speaker": "s1", "reference": "the cat sat", "hypothesis": "the bat sat"}
        | {"steps": "CSC", "errors": {"wer": [1, 3], "cer": [1, 11], "ter": [1, 11]}},
        {"id": "s1-2", "speaker": "s1", "reference": "on a mat", "hypothesis": "on a mat"}
        | {"steps": "CCC", "errors": {"wer": [0, 3], "cer": [0, 8], "ter": [0, 8]}},
        {"id": "s2-1", "speaker": "s2", "reference": "a cat", "hypothesis": ""}
        | {"steps": "DD", "errors": {"wer": [2, 2], "cer": [5, 5], "ter": [5, 5]}},
    ]


def test_a_missing_hypothesis_is_deleted_words_and_said(data, capsys):
    whole = score(data, output="whole")
    (data / "hyp").write_text(HYP.replace("s2-1\n", ""))
    assert score(data, output="score") == whole == 0
    assert capsys.readouterr().err == (
        f"warning: {data / 'hyp'}: 1 of 3 utterances have no hypothesis (first 's2-1'); all their "
        "words are counted as deleted\n"
    )
    plain, without = (
        json.loads((data / name / "score.json").read_text()) for name in ("whole", "score")
    )
    assert without == {**plain, "missing": ["s2-1"]}
    last = (data / "score" / "utterances.jsonl").read_text().splitlines()[-1]
    assert json.loads(last)["missing"] is True


def test_tokenizer_of_a_packed_model_is_that_of_the_folder(data):
    assert score(data, tokenizer="exp/x.esp", output="a") == score(data, output="b") == 0
    assert (data / "a" / "score.json").read_bytes() == (data / "b" / "score.json").read_bytes()


def test_symbols_of_the_tokenizer_are_not_scored(data):
    assert score(data, output="a") == 0
    (data / "test" / "text").write_text(TEXT.replace("the", "<n> the"))
    (data / "hyp").write_text(HYP.replace("mat", "<n> mat <n>"))
    assert score(data, output="b") == 0
    assert (data / "a" / "score.json").read_bytes() == (data / "b" / "score.json").read_bytes()


def test_a_fault_is_one_line_and_leaves_no_score(data, capsys):
    (data / "hyp").write_text(HYP + "s3-1 x\n")
    assert score(data) == 2
    error = capsys.readouterr().err
    assert f"{data / 'hyp'}:4: utterance 's3-1' is not in {data / 'test' / 'text'}" in error
    assert error.count("\n") == 1
    assert not (data / "score").exists()


def decode(data: Path, name: str, *more: str) -> None:
    """Write what decode_asr leaves for the packed model."""
    model = data / "exp" / "x.esp"
    decoded = {
        "rtf": 0.01,
        "config": {"name": "greedy"},
        "environment": {"cpu": "Some CPU"},
        "model": {"sha256": file_sha256(model)},
    }
    (data / name).mkdir(exist_ok=True)
    (data / name / "decode.json").write_text(json.dumps(decoded))
    assert score(data, *more, tokenizer="exp/x.esp", output=f"{name}/score") == 0


def write(data: Path, row: str, *more: str) -> int:
    arguments = ["--row", row, "--model", data / "exp" / "x.esp", "--results_dir", data]
    arguments += ["--decode_dirs", f"dev={data / 'dev'}", *more]
    return write_results.main([str(argument) for argument in arguments])


def test_results_are_drawn_from_all_rows_and_stable(data, capsys):
    decode(data, "dev")
    assert write(data, "first") == write(data, "second", "--title", "Mini") == 0
    page = (data / "RESULTS.md").read_text()
    assert "★ **first**" in page  # a tie goes to the first name
    assert "37.50 %" in page
    assert "./run.sh --stage decode --model exp/x.esp" in page
    row = (data / "results" / "second.json").read_text()
    (data / "results" / "notes.md").write_text("By hand.\n")
    assert write(data, "second", "--title", "Mini") == 0
    assert (data / "results" / "second.json").read_text() == row
    assert (data / "RESULTS.md").read_text().replace("## Notes\n\nBy hand.\n\n", "") == page
    assert str(data) not in page + row
    assert json.loads(row)["scores"]["dev"]["wer"]["counts"]["sub"] == 1


def test_a_fault_in_another_row_leaves_everything_as_it_was(data, capsys):
    decode(data, "dev")
    assert write(data, "first") == 0
    page = (data / "RESULTS.md").read_bytes()
    path = data / "results" / "first.json"
    broken = json.loads(path.read_text())
    del broken["record"]["updates"]
    path.write_text(json.dumps(broken))
    assert write(data, "second") == 2
    assert f"error: {path}: missing key 'record.updates'" in capsys.readouterr().err
    assert not (data / "results" / "second.json").exists()
    assert (data / "RESULTS.md").read_bytes() == page
    assert write(data, "first") == 0  # writing that very row again mends it


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["test"], "--decode_dirs: 'test', expected SET=DIR"),
        (["dev=x"], "--decode_dirs: set 'dev' is given twice"),
        (["--dev_sets", "dev2"], "dev set 'dev2' is not among the decoded sets: dev"),
        (["test=nowhere"], "nowhere/decode.json: no such file; decode again: ./run.sh"),
    ],
)
def test_bad_arguments_of_write_results(data, capsys, more, message):
    decode(data, "dev")
    assert write(data, "x", *more) == 2
    assert f"error: {message}" in capsys.readouterr().err
    assert not (data / "results").exists()


def test_model_without_a_training_record(data, capsys):
    decode(data, "dev")
    write_packed(data / "exp" / "x.esp", {"w": torch.zeros(1)}, {"parameters": 1})
    assert write(data, "x") == 2
    assert "x.esp: the header has no training record" in capsys.readouterr().err


PHONES = {
    word: tuple(word) for word in ["the", "cat", "sat", "on", "a"]
}  # not mat: a word of test alone


@pytest.fixture
def phone_data(data):
    """The folder of `data` with a model of phones in the place of the one of characters."""
    tokenizer = train_tokenizer(
        "phone", ["the cat sat on a <n>"], nlsyms=["<n>"], pronunciations=PHONES
    )
    tokenizer.save(data / "tokens")
    header = {
        "tokenizer": tokenizer.to_dict(),
        "parameters": 6,
        "record": {"parameters": 6, "minutes": 2.5, "updates": 10, "seed": 1},
    }
    write_packed(data / "exp" / "x.esp", {"w": torch.zeros(2, 3)}, header)
    (data / "hyp").write_text("s1-1 t h e b a t s a t\ns1-2 o n a\ns2-1 <n> a c a t\n")
    (data / "test" / "text").write_text("s1-1 the cat sat\ns1-2 on <n> a mat\ns2-1 a cat\n")
    (data / "lexicon").write_text("mat m a t\nmat m ah t\na ah\n")
    return data


def test_phones_are_scored_by_the_per_and_by_nothing_else(phone_data, capsys):
    (phone_data / "score" / "wer").mkdir(parents=True)
    (phone_data / "score" / "wer" / "result.txt").write_text("of a model of words")
    assert score(phone_data, "--lexicon", str(phone_data / "lexicon")) == 0
    # 9 + 6 + 4 phones: 1 substituted, 3 deleted; 4 / 19. "a" stays as the model has it.
    printed = capsys.readouterr().out
    assert [line[:65] for line in printed.splitlines()[-2:]] == [
        "|     | # Snt  # Wrd |  Corr    Sub    Del    Ins    Err  S.Err |",
        "| PER |     3     19 |  78.9    5.3   15.8    0.0   21.1   66.7 |",
    ]
    folder = phone_data / "score"
    assert names(folder) == {"score.json", "utterances.jsonl", "errors.txt", "per"}
    assert names(folder / "per") == KIND_FILES
    assert "PER of" in (folder / "errors.txt").read_text()
    assert "HYP:  t h e b a t s a t \n" in (folder / "per" / "result.txt").read_text()
    plain = json.loads((folder / "score.json").read_text())
    assert (plain["wer"], plain["cer"], plain["ter"]) == (None, None, None)
    assert (plain["utterances"], plain["phones"], "words" in plain) == (3, 19, False)
    assert plain["per"]["counts"]["del"] == 3
    assert not any("wer" in path.name for path in folder.rglob("*"))
    assert "WER" not in printed + "".join(p.read_text() for p in folder.rglob("*.txt"))


def test_a_reference_word_without_pronunciation(phone_data, capsys):
    assert score(phone_data) == 2
    assert capsys.readouterr().err == (
        f"error: {phone_data}/test/text, utterance 's1-2': the tokenizer has no pronunciation of "
        "1 word (mat); give --lexicon FILE with these words\n"
    )
    assert not (phone_data / "score").exists()
    spoken = train_tokenizer("phone", ["a cat"], pronunciations={**PHONES, "<unk>": ("SPN",)})
    spoken.save(phone_data / "tokens")
    assert score(phone_data) == 0
    assert "test/text: SPN for 2 words (<n> mat) without a pronunciation" in capsys.readouterr().out
    assert json.loads((phone_data / "score/score.json").read_text())["phones"] == 18


def test_a_lexicon_is_for_phones_only(data, capsys):
    assert score(data, "--lexicon", str(data / "hyp")) == 2
    assert (
        "error: --lexicon: needs a --tokenizer_of phones; leave it out" in capsys.readouterr().err
    )


def test_a_row_of_phones_says_per_on_the_page(phone_data):
    decode(phone_data, "dev", "--lexicon", str(phone_data / "lexicon"))
    assert write(phone_data, "phones") == 0
    page = (phone_data / "RESULTS.md").read_text()
    assert "★ **phones** is the headline row: the lowest PER on `dev` (21.05 %)" in page
    assert (
        json.loads((phone_data / "results/phones.json").read_text())["scores"]["dev"]["phones"]
        == 19
    )
    tables = [line for line in page.splitlines() if line.startswith("|")]
    assert not any("WER" in line or "CER" in line for line in tables)
