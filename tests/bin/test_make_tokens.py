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
        (TEXT, ["--token_type", "phone"], "unknown token type 'phone'"),
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
