"""make_tokens: what it writes and prints, and one line for a user's mistake."""

import pytest

from espnet_lite.bin.make_tokens import main
from espnet_lite.text.tokenizer import Tokenizer

TEXT = "fred-1 HELLO WORLD\nfred-2 NO <noise> 010\nmary-1 GO ON\nmary-2\n"


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "text"
    path.write_text(TEXT)
    return path


def run(*options):
    return main([str(option) for option in options])


def test_ids_are_no_text(text_file, tmp_path, capsys):
    assert run("--text", text_file, "--token-type", "char", "--output_dir", tmp_path / "out") == 0
    tokenizer = Tokenizer.load(tmp_path / "out")
    assert tokenizer.tokens == [
        *("<blank>", "<unk>", "<space>"),
        *sorted(set("HELLOWORLDNO<noise>010GOON")),
        "<sos/eos>",
    ]
    printed = capsys.readouterr().out
    assert f"{tmp_path / 'out'}: {tokenizer.vocab} char tokens of 4 lines" in printed
    assert "<blank> <unk> <space> 0 1" in printed


def test_bpe_of_two_texts_with_symbols(text_file, tmp_path):
    more, symbols = tmp_path / "more", tmp_path / "nlsyms"
    more.write_text("zoe-1 XYLOPHONE\n")
    symbols.write_text("<noise>\n\n<laugh>\n")
    options = ["--text", text_file, more, "--token_type", "bpe", "--vocab_size", 22]
    assert run(*options, "--nlsyms", symbols, "--output_dir", tmp_path / "out") == 0
    tokenizer = Tokenizer.load(tmp_path / "out")
    assert tokenizer.vocab == 22
    assert tokenizer.nlsyms == ("<noise>", "<laugh>")
    assert 1 not in tokenizer.encode("XYLOPHONE <noise>")


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (TEXT, ["--token_type", "bpe"], "vocab_size is None"),
        (TEXT, ["--token_type", "bpe", "--vocab_size", "900"], "vocab_size is 900, but this text"),
        (
            TEXT,
            ["--token_type", "phones"],
            "'phones' (did you mean 'phone'?), expected one of: bpe",
        ),
        (TEXT, ["--token_type", "phone"], "phone without a lexicon; give --lexicon FILE"),
        (
            TEXT,
            ["--token_type", "word", "--vocab_size", "3"],
            "vocab_size is 3 for token type word",
        ),
        (TEXT, ["--lexicon", "x"], "--lexicon: belongs to token type phone, not to char; leave it"),
        (
            TEXT,
            ["--token_type", "bpe", "--oov_phone", "SPN"],
            "--oov_phone: belongs to token type phone, not to bpe",
        ),
        (
            TEXT,
            ["--token_type", "phone", "--vocab_size", "9"],
            "--vocab_size: belongs to token type bpe or char or word, not to phone",
        ),
        (TEXT, ["--dev_text", "nowhere"], "nowhere: no such file"),
        ("a-1\nb-1 \n", [], "text: no words, expected lines of '<id> <words>'"),
        ("", [], "text: no words"),
        ("a-1 X\r\n", [], "text:1: carriage return"),
        ("a-1 X\n\nb-1 Y\n", [], "text:2: empty line"),
    ],
)
def test_one_line_and_exit_2(tmp_path, capsys, content, options, message):
    path = tmp_path / "text"
    path.write_text(content, newline="")
    assert run("--text", path, *options, "--output_dir", tmp_path / "out") == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["text"]


def test_files_that_are_not_there_or_not_right(text_file, tmp_path, capsys):
    out = ["--output_dir", tmp_path / "out"]
    assert run("--text", tmp_path / "nowhere", *out) == 2
    assert "nowhere: no such file" in capsys.readouterr().err
    symbols = tmp_path / "nlsyms"
    symbols.write_text("<noise>\n<a> <b>\n")
    assert run("--text", text_file, "--nlsyms", symbols, *out) == 2
    assert "nlsyms:2: '<a> <b>', expected one symbol a line" in capsys.readouterr().err
    symbols.write_text("<noise>\n<noise>\n")
    assert run("--text", text_file, "--nlsyms", symbols, *out) == 2
    assert "nlsyms:2: symbol '<noise>' for the second time" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_words_and_their_coverage(text_file, tmp_path, capsys):
    dev = tmp_path / "dev"
    dev.write_text("zoe-1 GO HOME\nzoe-2 NO\n")
    options = ["--token_type", "word", "--vocab_size", 7, "--dev_text", dev]
    assert run("--text", text_file, *options, "--output_dir", tmp_path / "out") == 0
    tokens = (tmp_path / "out/tokens.txt").read_text().split()
    assert tokens == ["<blank>", "<unk>", "010", "<noise>", "GO", "HELLO", "<sos/eos>"]
    printed = capsys.readouterr().out
    assert f"{text_file}: 7 tokens, OOV rate 42.86 % (3 of 7 words)\n" in printed
    assert f"{dev}: 3 tokens, OOV rate 66.67 % (2 of 3 words)\n" in printed


@pytest.fixture
def phone_files(text_file, tmp_path):
    """Paths of a training text, a dev text and a lexicon with two words of neither."""
    text_file.write_text("fred-1 GO ON\nfred-2 NO <noise>\n")
    dev, lexicon, symbols = tmp_path / "dev", tmp_path / "lexicon", tmp_path / "nlsyms"
    dev.write_text("zoe-1 GONE\nzoe-2 <noise> TEN\n")
    lexicon.write_text("GO G OW\nGONE G AO N\nGOAT G OW T\nNO N OW\nON AA N\nON AO N\nTO T UW\n")
    symbols.write_text("<noise>\n")
    options = ["--text", text_file, "--dev_text", dev, "--token_type", "phone"]
    return [*options, "--lexicon", lexicon, "--nlsyms", symbols, "--output_dir", tmp_path / "out"]


def test_a_word_of_dev_without_pronunciation_is_refused(phone_files, tmp_path, capsys):
    assert run(*phone_files) == 2
    error = capsys.readouterr().err
    assert error == (
        f"error: {tmp_path}/dev:2: no pronunciation in {tmp_path}/lexicon of 1 word (TEN); add "
        "them to the lexicon, or give --oov_phone PHONE to say them all with one phone\n"
    )
    assert not (tmp_path / "out").exists()


def test_phones_keep_the_words_of_train_and_dev(phone_files, tmp_path, capsys):
    assert run(*phone_files, "--oov_phone", "SPN") == 0
    out = tmp_path / "out"
    assert (
        out / "lexicon.txt"
    ).read_text() == "<unk> SPN\nGO G OW\nGONE G AO N\nNO N OW\nON AA N\n"
    tokens = (out / "tokens.txt").read_text().split()
    # AO and SPN are of dev alone: nothing would train them
    assert tokens == ["<blank>", "<unk>", "<noise>", "AA", "G", "N", "OW", "<sos/eos>"]
    printed = capsys.readouterr().out
    assert f"{tmp_path}/lexicon: SPN for 1 word (TEN) without a pronunciation\n" in printed
    assert "text: 7 tokens, OOV rate 0.00 % (0 of 4 words)\n" in printed
    assert "dev: 5 tokens, OOV rate 66.67 % (2 of 3 words)\n" in printed


def test_a_fault_in_the_lexicon_leaves_nothing(phone_files, tmp_path, capsys):
    (tmp_path / "lexicon").write_text("GO G OW\nON\n")
    assert run(*phone_files) == 2
    assert f"error: {tmp_path}/lexicon:2: word 'ON' without phones" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_of_other_things_is_not_replaced(text_file, tmp_path, capsys):
    options = ["--text", text_file, "--output_dir"]
    assert run(*options, tmp_path) == 2  # a slip that would delete the text itself
    assert f"{tmp_path}: would replace its source {text_file}" in capsys.readouterr().err
    other = tmp_path / "exp"
    other.mkdir()
    (other / "model").touch()
    assert run(*options, other) == 2
    assert "exp: holds 'model' and no tokens.txt, so it is not replaced" in capsys.readouterr().err
    assert (other / "model").exists() and text_file.read_text() == TEXT
    (other / "model").unlink()
    assert run(*options, other) == 0 and run(*options, other) == 0
