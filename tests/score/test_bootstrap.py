"""Intervals by bootstrap over speakers against draws one by one, and the program on rows."""

import json

import numpy as np
import pytest

from espnet_lite.bin import compare_rows
from espnet_lite.score.bootstrap import draw_speakers, paired_difference

TOKENS = [100, 50, 200, 80]
FIRST = [30, 10, 90, 20]
SECOND = [25, 12, 70, 15]


def test_each_draw_has_as_many_speakers_as_there_are():
    drawn = draw_speakers(5, draws=2000, seed=1)
    assert drawn.shape == (2000, 5) and (drawn.sum(axis=1) == 5).all()
    assert np.abs(drawn.mean(axis=0) - 1).max() < 0.1


def test_rates_and_bounds_equal_draws_one_by_one():
    found = paired_difference(FIRST, SECOND, tokens=TOKENS, draws=500, seed=3)
    assert found.first.value == pytest.approx(100 * 150 / 430)
    assert found.difference.value == pytest.approx(100 * (150 - 122) / 430)
    differences = []
    for counts in draw_speakers(4, draws=500, seed=3):
        speakers = [i for i, count in enumerate(counts) for _ in range(count)]
        words = sum(TOKENS[i] for i in speakers)
        differences.append(100 * sum(FIRST[i] - SECOND[i] for i in speakers) / words)
    low, high = np.quantile(differences, [0.025, 0.975])
    assert (found.difference.low, found.difference.high) == pytest.approx((low, high))
    assert found.improbability == pytest.approx(np.mean([d <= 0 for d in differences]))


def test_equal_systems_do_not_differ():
    found = paired_difference(FIRST, FIRST, tokens=TOKENS)
    assert found.difference.value == found.difference.low == found.difference.high == 0
    assert found.improbability == 1.0


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


def test_program_means_over_seeds_and_refuses_other_sets(tmp_path, capsys):
    for name, errors in (("a", FIRST), ("b", [26, 12, 70, 15]), ("c", [24, 12, 70, 15])):
        (tmp_path / f"{name}.json").write_text(json.dumps(row(errors)))
    paths = {name: str(tmp_path / f"{name}.json") for name in "abc"}
    options = ["--first", paths["a"], "--second", paths["b"], paths["c"], "--draws", "200"]
    assert compare_rows.main([*options, "--set", "dev"]) == 0
    out = capsys.readouterr().out
    assert (
        "first       34.9 [" in out and "second      28.4 [" in out and "difference  6.5 [" in out
    )
    assert compare_rows.main([*options, "--set", "test"]) == 2
    assert "no scores of 'test', there are: dev" in capsys.readouterr().err
    bare = row(FIRST)
    del bare["scores"]["dev"]["wer"]["speakers"]
    (tmp_path / "a.json").write_text(json.dumps(bare))
    assert compare_rows.main([*options, "--set", "dev"]) == 2
    assert "no counts by speaker" in capsys.readouterr().err
