"""ARPA files: there and back, and every fault with its line."""

import gzip

import numpy as np
import pytest

from espnet_lite.errors import InputError
from espnet_lite.lm.arpa import read_arpa, write_arpa
from espnet_lite.lm.packed import read_ngram, write_ngram
from espnet_lite.runtime.format import write_packed

ARPA = """comment

\\data\\
ngram 1=5
ngram 2=3
ngram 3=1

\\1-grams:
-1\t<unk>
-99\t<s>\t-0.5
-0.6\t</s>
-0.4\ta\t-0.2
-0.8\tb\t-0.1

\\2-grams:
-0.3\t<s> a\t-0.05
-0.2\ta b\t0.01
-0.7\tb </s>

\\3-grams:
-0.1\t<s> a b

\\end\\
"""


def written(tmp_path, text):
    path = tmp_path / "lm.arpa"
    path.write_text(text)
    return path


def test_back_off_by_hand(tmp_path):
    model = read_arpa(written(tmp_path, ARPA))
    assert model.counts() == [5, 3, 1]
    log10 = {}
    state = np.array(model.start)
    for word in ("a", "b", "b", "x", "</s>"):
        score, state = model.score(state, np.array(model.ids.get(word, 0)))
        log10[word] = score / np.log(10)
        if word == "b":
            # <s> a b, then a b → b: 0.01 (a b), −0.1 (b), −0.8 (b)
            log10["b b"], log10["b"] = log10["b"], log10.get("b b", log10["b"])
    assert log10["a"] == pytest.approx(-0.3)
    assert log10["b"] == pytest.approx(-0.1)
    assert log10["b b"] == pytest.approx(0.01 - 0.1 - 0.8)
    assert log10["x"] == pytest.approx(-0.1 - 1)  # after b
    assert log10["</s>"] == pytest.approx(-0.6)  # nothing is known after <unk>


def test_a_missing_suffix_is_no_fault(tmp_path):
    """'x a b' without 'a b' (SRILM prunes so): its suffix is b."""
    text = ARPA.replace("ngram 2=3", "ngram 2=2").replace("-0.2\ta b\t0.01\n", "")
    model = read_arpa(written(tmp_path, text))
    _, state = model.score(np.array(model.start), np.array(model.ids["a"]))
    score, state = model.score(state, np.array(model.ids["b"]))
    assert score / np.log(10) == pytest.approx(-0.1)
    score, _ = model.score(state, np.array(model.ids["</s>"]))
    assert score / np.log(10) == pytest.approx(-0.7)


@pytest.mark.parametrize("name", ["lm.arpa", "lm.arpa.gz", "lm.esp"])
def test_there_and_back(tmp_path, name):
    model, path = read_arpa(written(tmp_path, ARPA)), tmp_path / f"again_{name}"
    if name == "lm.esp":
        write_ngram(path, model, unit="token", record={})
    else:
        write_arpa(path, model)
    again = read_ngram(path)
    assert (again.words, again.order, again.start) == (model.words, 3, model.start)
    for array in ("parent", "word", "suffix", "level_starts"):
        np.testing.assert_array_equal(getattr(again, array), getattr(model, array))
    for array in ("log_prob", "backoff"):
        np.testing.assert_allclose(getattr(again, array), getattr(model, array), atol=1e-5)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("\\data\\\n", "data\n", r"no \\data\\, expected an ARPA file"),
        ("ngram 2=3", "ngram 3=3", r":5: 'ngram 3=3', expected 'ngram 2=COUNT'"),
        ("ngram 2=3", "ngram 2=x", r":5: 'ngram 2=x'"),
        ("ngram 2=3", "ngram 2=4", r":20: '\\3-grams:' before 4 2-grams, as the header has it"),
        ("ngram 2=3", "ngram 2=2", r":18: '-0.7 b </s>', expected '\\3-grams:'"),
        ("\\2-grams:", "\\3-grams:", r":15: '\\3-grams:', expected '\\2-grams:'"),
        ("-0.2\ta b\t0.01", "-0.2\ta b c d", r":17: 5 fields in '-0.2 a b c d', expected"),
        ("-0.2\ta b\t0.01", "-0.2\ta", r":17: 2 fields"),
        ("-0.2\ta b\t0.01", "-0.2\ta c\t0.01", r":17: word 'c' has no unigram"),
        ("-0.2\ta b", "0.2\ta b", r":17: log10 probability '0.2', expected a number up to 0"),
        ("-0.2\ta b\t0.01", "-0.2\ta b\tx", r":17: log10 back-off weight 'x', expected a number"),
        ("-0.2\ta b", "nan\ta b", r":17: log10 probability 'nan'"),
        ("-0.7\tb </s>", "-0.7\ta b", r":18: this 2-gram stands for the second time"),
        ("-0.1\t<s> a b", "-0.1\tb a b", r":21: the 3-gram 'b a b' without the 2-gram that it"),
        ("-0.6\t</s>", "-0.6\tend", r"no unigram </s>"),
        ("\\end\\", "", r"expected \\end\\"),
        ("ngram 3=1\n", "", r"'\\3-grams:'.*expected \\end\\|expected \\end\\"),
    ],
)
def test_faults(tmp_path, old, new, message):
    assert old in ARPA
    with pytest.raises(InputError, match=message):
        read_arpa(written(tmp_path, ARPA.replace(old, new, 1)))


def test_no_file_and_a_cut_one(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_arpa(tmp_path / "none.arpa")
    path = tmp_path / "lm.arpa.gz"
    path.write_bytes(gzip.compress(ARPA.encode())[:-20])
    with pytest.raises(InputError, match="not a whole ARPA file"):
        read_arpa(path)


def test_a_packed_file_of_something_else(tmp_path):
    write_packed(tmp_path / "x.esp", {}, {"kind": "other"})
    with pytest.raises(InputError, match="no language model"):
        read_ngram(tmp_path / "x.esp")


def test_states_forget_what_cannot_matter(tmp_path):
    """After 'b </s>' and <unk>, nothing that follows depends on them."""
    model = read_arpa(written(tmp_path, ARPA))
    _, state = model.score(np.array(model.start), np.array(0))
    assert state == 0
