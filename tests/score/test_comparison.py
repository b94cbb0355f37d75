"""Comparisons of runs: what is read, which pairs, and the program on rows and on folders."""

import json
import random

import pytest

from espnet_lite.bin import compare_rows
from espnet_lite.score.comparison import holm
from espnet_lite.score.score_folder import write_score_folder
from espnet_lite.score.scoring import score_pairs
from espnet_lite.score.transcripts import words

TOKENS = [100, 50, 200, 80]
FIRST = [30, 10, 90, 20]


def row(errors: list[int]) -> dict:
    def counts(err: int, tokens: int) -> dict:
        zero = dict.fromkeys(("corr", "sub", "del", "ins", "s_err"), 0)
        return {"utterances": 4, "tokens": tokens, "err": err, **zero}

    speakers = {f"s{i}": [err, TOKENS[i]] for i, err in enumerate(errors)}
    wer = {"counts": counts(sum(errors), sum(TOKENS)), "percent": {}, "speakers": speakers}
    return {
        "row": "x",
        "title": "t",
        "dev_sets": ["dev"],
        "model": {"file": "m", "sha256": "0", "bytes": 1, "parameters": 1},
        "record": {"parameters": 1, "minutes": 1.0, "updates": 1, "seed": 1},
        "decode": {"rtf": {"dev": 0.1}, "config": {}},
        "environment": {},
        "scores": {"dev": {"utterances": 4, "words": 430, "wer": wer, "cer": None, "ter": None}},
    }


@pytest.fixture
def rows(tmp_path):
    """Return the paths of three rows by name."""
    paths = {}
    for name, errors in (("a", FIRST), ("b", [26, 12, 70, 15]), ("c", [24, 12, 70, 15])):
        paths[name] = tmp_path / f"{name}.json"
        paths[name].write_text(json.dumps(row(errors)))
    return paths


def run(*arguments) -> int:
    return compare_rows.main([str(argument) for argument in (*arguments, "--draws", "200")])


def test_seeds_are_averaged_and_their_spread_is_shown(rows, capsys):
    assert run(rows["a"], f"{rows['b']},{rows['c']}", "--set", "dev") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "WER in percent [95 %], 200 draws of 4 speakers"
    assert lines[1].startswith("of so few speakers the intervals are too short")
    assert lines[2].startswith("  1  34.88 [") and lines[2].endswith(str(rows["a"]))
    # errors of the seeds: 123 and 121 of 430 words
    assert lines[3].startswith("  2  28.37 [")
    assert lines[3].endswith("2 seeds: 28.60 28.14, s.d. 0.33")
    assert lines[5].startswith("  1 - 2  6.51 [") and "MAPSSWE" not in lines[5]


def test_faults_of_rows_are_named(rows, capsys):
    assert run(rows["a"], rows["b"], "--set", "test") == 2
    assert "a.json: no scores of 'test', there are: dev" in capsys.readouterr().err
    assert run(rows["a"], rows["b"]) == 2
    assert "a row of results has several sets: dev; give --set" in capsys.readouterr().err
    assert run(rows["a"], "--set", "dev") == 2
    assert "nothing to compare; give two or more" in capsys.readouterr().err
    bare = row(FIRST)
    del bare["scores"]["dev"]["wer"]["speakers"]
    rows["c"].write_text(json.dumps(bare))
    assert run(rows["a"], rows["c"], "--set", "dev") == 2
    assert "c.json: the row has no counts by speaker; score again" in capsys.readouterr().err
    other = row(FIRST)
    other["scores"]["dev"]["wer"]["speakers"]["s0"][1] = 99
    rows["c"].write_text(json.dumps(other))
    assert run(rows["a"], rows["c"], "--set", "dev") == 2
    assert "c.json: other speakers or words than in " in capsys.readouterr().err


@pytest.fixture
def folders(tmp_path):
    """Return score folders of three systems, the first and the last alike."""
    rng = random.Random(3)
    references = {f"s{i % 4}-{i}": rng.choices("abcdef", k=rng.randint(1, 9)) for i in range(60)}
    speakers = {name: name.split("-")[0] for name in references}
    paths = []
    for number, rate in enumerate((0.4, 0.1, 0.4)):
        rng = random.Random(5)
        pairs = {
            name: (" ".join(words), " ".join(w if rng.random() > rate else "x" for w in words))
            for name, words in references.items()
        }
        folder = tmp_path / f"dev{number}"
        score = score_pairs(pairs, words, speakers=speakers)
        write_score_folder(folder / "score", {"wer": score}, title="x")
        paths.append(folder)
    return paths


def test_folders_of_few_speakers_are_drawn_by_utterance_with_mapsswe(folders, tmp_path, capsys):
    output = tmp_path / "comparison.json"
    assert run(*folders[:2], folders[2] / "score", "--output", output) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "WER in percent [95 %], 200 draws of 60 utterances"
    assert lines[5].startswith("  1 - 2  ") and "; MAPSSWE p 0.0000 (" in lines[5]
    assert "p < 0.01, of all pairs < 0.01" in lines[5]
    assert lines[6].startswith("  1 - 3  0.00 [0.00, 0.00]")
    assert "p 1.0000, of all pairs 1.0000; MAPSSWE p 1.0000 (" in lines[6]
    plain = json.loads(output.read_text())
    assert [one["sources"] for one in plain["runs"][:2]] == [[str(path)] for path in folders[:2]]
    assert [one["first"] for one in plain["differences"]] == [str(folders[i]) for i in (0, 0, 1)]
    first = plain["differences"][0]
    assert first["value"] == pytest.approx(plain["runs"][0]["value"] - plain["runs"][1]["value"])
    assert first["matched_pairs"]["z"] > 3


def test_other_references_are_refused(folders, capsys):
    path = folders[1] / "score" / "utterances.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    changed = json.loads(lines[3])
    changed["reference"] += " more"
    lines[3] = json.dumps(changed) + "\n"
    path.write_text("".join(lines))
    assert run(*folders[:2]) == 2
    said = capsys.readouterr().err
    assert f"dev1: 1 utterances have another reference than in {folders[0]}, the first" in said


def test_holm_by_hand():
    # sorted 0.01 · 3, 0.02 · 2, 0.03 · 1: none below the one before
    assert holm([0.02, 0.03, 0.01]) == pytest.approx([0.04, 0.04, 0.03])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([0.2]) == [0.2] and holm([]) == []
