"""Against NIST sclite itself, where it is installed; its markup characters tested apart."""

import importlib.util
import random
from pathlib import Path

import pytest

from espnet_lite.errors import InputError
from espnet_lite.score.alignment import align
from espnet_lite.score.sclite import (
    find_sclite,
    read_sgml_steps,
    run_sclite,
    sclite_report,
    trn_id,
    trn_line,
    write_trn,
)
from espnet_lite.score.sclite_report import result_text
from espnet_lite.score.scoring import score_pairs
from espnet_lite.score.transcripts import words

_TOOL = Path(__file__).parents[2] / "tools" / "benchmarks" / "sclite_parity.py"
_SPEC = importlib.util.spec_from_file_location("sclite_parity", _TOOL)
parity = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(parity)

needs_sclite = pytest.mark.skipif(
    find_sclite() is None, reason="NIST sclite is not installed (apt-get install sctk)"
)


def differing(pairs) -> list:
    wanted = parity.sclite_steps(pairs)
    return [pair for pair, steps in zip(pairs, wanted, strict=True) if align(*pair).steps != steps]


@needs_sclite
def test_sclite_aligns_as_we_do_on_fresh_pairs():
    assert differing(parity.random_pairs(1500, seed=11)) == []


@needs_sclite
@pytest.mark.slow
def test_sclite_aligns_as_we_do_on_ten_thousand_fresh_pairs():
    assert differing(parity.random_pairs(10_000, seed=12)) == []


@needs_sclite
def test_sclite_agrees_on_long_sequences_of_characters():
    rng = random.Random(2)
    pairs = [
        (rng.choices("abcde", k=rng.randint(80, 200)), rng.choices("abcde", k=rng.randint(80, 200)))
        for _ in range(20)
    ]
    assert differing(pairs) == []


def random_transcripts() -> tuple[dict[str, tuple[str, str]], dict[str, str]]:
    """Return pairs and speakers: 60 speakers of 1 to 5 utterances, some without any word."""
    rng = random.Random(8)
    pairs, speakers = {}, {}
    for index in range(60):
        for number in range(rng.randint(1, 5)):
            name = f"spk{index:02d}-{number}"
            reference = rng.choices("abcdef", k=rng.choice([0, 4, 8, 16]))
            hypothesis = [rng.choice("abcdef") if rng.random() < 0.2 else w for w in reference]
            hypothesis += ["a"] * (rng.random() < 0.2)
            pairs[name] = (" ".join(reference), " ".join(hypothesis))
            speakers[name] = f"spk{index:02d}"
    return pairs, speakers


@needs_sclite
@pytest.mark.parametrize("empty", [False, True])
def test_result_txt_is_what_sclite_prints(tmp_path, empty):
    """To the byte; of speakers without a reference word, one: sclite takes the wrong ones of more
    out of its mean, deviation and median."""
    pairs, speakers = random_transcripts()
    by_speaker = {}
    for name in pairs:
        by_speaker.setdefault(speakers[name], []).append(pairs[name][0])
    without = [name for name, texts in by_speaker.items() if not any(texts)]
    assert len(without) > 1
    drop = set(without[int(empty) :])
    pairs = {name: pair for name, pair in pairs.items() if speakers[name] not in drop}
    score = score_pairs(pairs, words, speakers=speakers)
    for side, index in (("ref", 0), ("hyp", 1)):
        transcripts = {name: pair[index].split() for name, pair in pairs.items()}
        write_trn(tmp_path / f"{side}.trn", transcripts, speakers=speakers)
    ours = "".join(result_text(score, title="hyp.trn"))
    assert ("0*" in ours) == empty
    assert ours == sclite_report(tmp_path / "ref.trn", tmp_path / "hyp.trn")


@needs_sclite
def test_result_txt_of_a_hundred_speakers_with_markup(tmp_path):
    rng = random.Random(5)
    tokens = [token for token in MARKUP if token.isascii()]
    pairs = {
        f"{'s' * rng.randint(1, 12)}{i}-_{k}": tuple(
            " ".join(rng.choices(tokens, k=rng.choice([1, 5, 30]))) for _ in range(2)
        )
        for i in range(110)
        for k in range(rng.randint(1, 3))
    }
    speakers = {name: name.split("-")[0] for name in pairs}
    score = score_pairs(pairs, words, speakers=speakers)
    for side, index in (("ref", 0), ("hyp", 1)):
        transcripts = {name: pair[index].split() for name, pair in pairs.items()}
        write_trn(tmp_path / f"{side}.trn", transcripts, speakers=speakers)
    ours = "".join(result_text(score, title="hyp.trn"))
    assert ours == sclite_report(tmp_path / "ref.trn", tmp_path / "hyp.trn")


MARKUP = ["{", "}", "/", "{a", "b}", "@", "@@", "(c)", "(", ")", "%d", ";", "e;f", "e;g", ";;"]
MARKUP += ["**", "*", "\\", "\\h", "h", '"', 'i"j', "&amp;", "<unk>", "k-", "-k", "a:b", "a,b"]
MARKUP += ["%7B", "é", "日本", "C,"]


@needs_sclite
def test_escaped_markup_is_literal_for_sclite_too():
    rng = random.Random(4)
    pairs = [
        (rng.choices(MARKUP, k=rng.randint(0, 8)), rng.choices(MARKUP, k=rng.randint(0, 8)))
        for _ in range(300)
    ]
    pairs += [([token], [token]) for token in MARKUP]
    assert differing(pairs) == []


@needs_sclite
def test_bare_markup_means_something_else_to_sclite(tmp_path):
    """Why the escape is there: on these lines sclite and we disagree, on purpose."""
    bare = {"alternatives": ("{ a / b } c", "b c", "CC"), "empty": ("@ c", "c", "C")}
    for name, (reference, hypothesis, expected) in bare.items():
        (tmp_path / "ref.trn").write_text(f"{reference} (s-1)\n")
        (tmp_path / "hyp.trn").write_text(f"{hypothesis} (s-1)\n")
        run_sclite(tmp_path / "ref.trn", tmp_path / "hyp.trn", output_dir=tmp_path)
        # what sclite makes of @ is one correct word and a mark that it does not count
        counted = read_sgml_steps(tmp_path / "sclite.sgml")["s-1"].replace("D", "")
        assert counted == expected, name
        assert align(reference.split(), hypothesis.split()).counts.deleted > 0, name


def test_trn_lines_escape_markup_one_to_one():
    line = trn_line(["{a", "b}", "50%", "it's", "x-y"], speaker="s_1", utterance="s_1-(u)")
    assert line == "%7Ba b%7D 50%25 it's x-y (s%5F1-s_1-%28u%29)"
    assert trn_line([], speaker="s", utterance="u") == "(s-u)"
    names = [trn_id(a, b) for a, b in (("a-b", "c"), ("a", "b-c"), ("a%2Db", "c"))]
    assert len(set(names)) == 3


def test_read_sgml_steps_names_file_and_line_of_a_fault(tmp_path):
    path = tmp_path / "x.sgml"
    path.write_text('<PATH id="(s-1)" word_cnt="2">\nC,"a","a":D,"b",\n</PATH>\n')
    assert read_sgml_steps(path) == {"s-1": "CD"}
    path.write_text('<PATH id="(s-1)" word_cnt="2">\nC,"a","a":Q,"b",\n</PATH>\n')
    with pytest.raises(InputError, match=r'x\.sgml:2: not a step of an alignment: Q,"b",'):
        read_sgml_steps(path)


def test_without_sclite_the_error_names_the_package(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="sclite is not installed; apt-get install sctk"):
        run_sclite(tmp_path / "a", tmp_path / "b", output_dir=tmp_path)
