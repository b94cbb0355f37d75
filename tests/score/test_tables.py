"""Tables against what NIST sclite printed (stored here) and hand-worked alignments."""

import pytest

from espnet_lite.score.alignment import Counts
from espnet_lite.score.scoring import score_pairs, scores_to_plain
from espnet_lite.score.tables import alignment_text, score_tables, summary_table
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
    lines = score_tables(score, title="WER of x").splitlines()
    # sctk sclite -s -i rm of the same four utterances, its .sys and then its .raw
    assert cells(lines[3]) == "a 2 0 0* 0* 0* 2* 2* 50.0"
    assert cells(lines[4]) == "b 2 6 66.7 16.7 16.7 16.7 50.0 100.0"
    assert cells(lines[6]) == "Sum/Avg 4 6 66.7 16.7 16.7 50.0 83.3 75.0"
    assert lines[7] == "* no reference tokens: a count instead of percent"
    assert cells(lines[12]) == "a 2 0 0 0 0 2 2 1"
    assert cells(lines[13]) == "b 2 6 4 1 1 1 3 2"
    assert cells(lines[15]) == "Sum 4 6 4 1 1 3 5 3"


def test_sum_without_any_reference_word_shows_the_insertions():
    score = score_pairs({"a-1": ("", "x y")}, words, speakers={"a-1": "a"})
    assert "| Sum/Avg |     1      0 |    0*     0*     0*     2*     2*  100.0 |" in score_tables(
        score, title="t"
    )


def test_alignments_read_in_columns(score):
    blocks = alignment_text(score).split("\n\n")
    assert blocks[0] == (
        "id: (a-1)\nspeaker: a\nScores: (#C #S #D #I) 0 0 0 2\nREF:  * *\nHYP:  x y\nEval: I I"
    )
    assert blocks[1] == ("id: (a-2)\nspeaker: a\nScores: (#C #S #D #I) 0 0 0 0\nREF:\nHYP:\nEval:")
    assert blocks[2].splitlines()[3:] == [
        "REF:  the cat sat ****",
        "HYP:  the bat sat down",
        "Eval:     S       I",
    ]
    assert blocks[3].splitlines()[3:] == ["REF:  on a mat", "HYP:  ** a mat", "Eval: D"]


def test_wide_and_combining_characters_keep_the_columns():
    pairs = {"a-1": ("日本 e\u0301 b", "c")}
    lines = alignment_text(score_pairs(pairs, words, speakers=SPEAKERS)).splitlines()
    assert lines[3:] == ["REF:  日本 e\u0301 b", "HYP:  **** * c", "Eval: D    D S"]


def test_summary_has_a_line_for_each_kind(score):
    text = summary_table({"wer": score.total, "cer": Counts(4, 20, 1, 2, 3, 3)})
    assert text == (
        "|     | # Snt  # Wrd |  Corr    Sub    Del    Ins    Err  S.Err |\n"
        "| WER |     4      6 |  66.7   16.7   16.7   50.0   83.3   75.0 |\n"
        "| CER |     4     23 |  87.0    4.3    8.7   13.0   26.1   75.0 |\n"
    )


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
