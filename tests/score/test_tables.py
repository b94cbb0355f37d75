"""Tables against what NIST sclite printed (stored here) and hand-worked alignments."""

import json

import pytest

from espnet_lite.errors import InputError
from espnet_lite.score.error_analysis import analysis_to_plain
from espnet_lite.score.sclite_report import alignment_lines, result_text, scores_line
from espnet_lite.score.score_folder import read_utterances, scores_to_plain, write_score_folder
from espnet_lite.score.scoring import score_pairs
from espnet_lite.score.tables import errors_text, summary_table
from espnet_lite.score.transcripts import characters, words

PAIRS = {
    "a-1": ("", "x y"),
    "a-2": ("", ""),
    "b-1": ("the cat sat", "the bat sat down"),
    "b-2": ("on a mat", "a mat"),
}
SPEAKERS = {"a-1": "a", "a-2": "a", "b-1": "b", "b-2": "b"}


@pytest.fixture
def score():
    return score_pairs(PAIRS, words, speakers=SPEAKERS)


def cells(line: str) -> str:
    return " ".join(line.replace("|", " ").split())


def test_tables_hold_the_numbers_that_sclite_printed(score):
    lines = "".join(result_text(score, title="x")).splitlines()
    # sctk sclite -s -i rm of the same four utterances, its .sys and then its .raw
    assert cells(lines[10]) == "a 2 0 0* 0* 0* 2* 2* 50.0"
    assert cells(lines[12]) == "b 2 6 66.7 16.7 16.7 16.7 50.0 100.0"
    assert cells(lines[14]) == "Sum/Avg 4 6 66.7 16.7 16.7 50.0 83.3 75.0"
    assert lines[21] == "* No Reference words for this/these speaker(s).  Word counts supplied"
    assert cells(lines[35]) == "a 2 0 0 0 0 2 2 1"
    assert cells(lines[37]) == "b 2 6 4 1 1 1 3 2"
    assert cells(lines[39]) == "Sum 4 6 4 1 1 3 5 3"


def test_sum_without_any_reference_word_shows_the_insertions():
    score = score_pairs({"a-1": ("", "x y")}, words, speakers={"a-1": "a"})
    lines = summary_table({"wer": score}).splitlines()
    assert (
        lines[1]
        == "| WER |     1      0 |    0*     0*     0*     2*     2*  100.0 |           - |"
    )
    assert lines[2] == "* no reference tokens: a count instead of percent"


def test_alignments_read_in_columns(score):
    assert scores_line(score.counts["a-1"]) == "Scores: (#C #S #D #I) 0 0 0 2\n"
    blocks = {name: alignment_lines(one).splitlines() for name, one in score.alignments.items()}
    assert blocks["a-1"] == ["REF:  * * ", "HYP:  x y ", "Eval: I I "]
    assert blocks["a-2"] == []
    assert blocks["b-1"] == [
        "REF:  the cat sat **** ",
        "HYP:  the bat sat down ",
        "Eval:     S       I    ",
    ]
    assert blocks["b-2"] == ["REF:  on a mat ", "HYP:  ** a mat ", "Eval: D        "]


def test_wide_and_combining_characters_keep_the_columns():
    score = score_pairs({"a-1": ("日本 e\u0301 b", "c")}, words, speakers=SPEAKERS)
    lines = alignment_lines(score.alignments["a-1"]).splitlines()
    assert lines == ["REF:  日本 e\u0301 b ", "HYP:  **** * c ", "Eval: D    D S "]


def test_summary_has_a_line_for_each_kind(score):
    text = summary_table(
        {"wer": score, "cer": score_pairs({"b": ("ab", "ac")}, characters, speakers={"b": "b"})}
    )
    # of 4 utterances 2 have no word: a draw of these two alone has no rate
    low, high = score.interval["low"], score.interval["high"]
    interval = f"[{low:.1f}, {high:.1f}] by utterances"
    assert text.splitlines()[1:] == [
        f"| WER |     4      6 |  66.7   16.7   16.7   50.0   83.3   75.0 | {interval:>26} |",
        "| CER |     1      2 |  50.0   50.0    0.0    0.0   50.0  100.0 |                           - |",
    ]


def test_json_has_counts_percent_and_speakers(score):
    plain = scores_to_plain(
        {"wer": score, "cer": score_pairs(PAIRS, characters, speakers=SPEAKERS)}
    )
    assert (plain["utterances"], plain["words"], plain["ter"]) == (4, 6, None)
    assert plain["wer"]["counts"] == {
        "utterances": 4,
        "tokens": 6,
        "corr": 4,
        "sub": 1,
        "del": 1,
        "ins": 3,
        "err": 5,
        "s_err": 3,
    }
    assert plain["wer"]["percent"]["err"] == 83.3333
    assert plain["wer"]["speakers"]["a"]["percent"] == {
        "corr": None,
        "sub": None,
        "del": None,
        "ins": None,
        "err": None,
        "s_err": 50.0,
    }
    # "the cat sat" 11 + "on a mat" 8 characters with their spaces; "x y" adds 3, " down" 5
    assert plain["cer"]["counts"]["tokens"] == 19
    assert plain["cer"]["counts"]["ins"] == 8
    assert plain["wer"]["interval"]["over"] == "utterances"
    assert plain["missing"] == []


def test_where_the_errors_are(score):
    plain = analysis_to_plain(score)
    assert plain["substituted"] == [["cat", "bat", 1]]
    assert plain["deleted"] == [["on", 1]]
    assert plain["inserted"] == [["down", 1], ["x", 1], ["y", 1]]
    assert [(one["fewest"], one["most"]) for one in plain["by_length"]] == [(0, 0), (1, 5)]
    assert [one["counts"]["err"] for one in plain["by_length"]] == [2, 3]
    assert plain["worst"] == ["a-1", "b-1", "b-2"]  # 2 errors, 2 of 3 words with one more


def test_lengths_are_whole_ranges_with_an_open_end():
    pairs = {f"u{n}": (" ".join("a" * n), "a") for n in (1, 5, 6, 10, 60, 61, 100)}
    score = score_pairs(pairs, words, speakers=dict.fromkeys(pairs, "s"))
    lengths = analysis_to_plain(score)["by_length"]
    assert [(one["fewest"], one["most"], one["counts"]["utterances"]) for one in lengths] == [
        *((1, 5, 2), (6, 10, 2), (41, 60, 1), (61, None, 2)),
    ]


def test_errors_text_begins_with_the_worst(score):
    text = "".join(errors_text(score, title="WER of x"))
    assert text.startswith("WER of x\n\n5 errors in 6 tokens of 4 utterances, 95 % interval [")
    assert text.index("| b ") < text.index("| a ")  # without reference tokens there is no rate
    assert "     1  cat → bat\n" in text
    assert text.index("id: (a-1), speaker a") < text.index("id: (b-1), speaker b")


def test_utterances_read_back_are_those_written(score, tmp_path):
    write_score_folder(tmp_path, {"wer": score}, title="x", missing=["b-2"])
    found = read_utterances(tmp_path / "utterances.jsonl")
    assert {name: one.alignment for name, one in found.items()} == score.alignments
    assert {name: one.speaker for name, one in found.items()} == SPEAKERS
    assert [one.errors["wer"] for one in found.values()] == [(2, 0), (0, 0), (2, 3), (1, 3)]
    assert [name for name, one in found.items() if one.missing] == ["b-2"]
    lines = (tmp_path / "utterances.jsonl").read_text().splitlines()
    (tmp_path / "bad").write_text(f"{lines[0]}\n{json.dumps({'id': 'x'})}\n")
    with pytest.raises(
        InputError, match=r"bad:2: not an utterance of a score \('reference'\); sco"
    ):
        read_utterances(tmp_path / "bad")
