"""Unfinished results on disk: whose they are, and lines that a kill cut short."""

import pytest

from espnet_lite.decode.shards import (
    BatchResult,
    Decoded,
    Reading,
    append_result,
    prepare,
    read_results,
    results_path,
)


def result(batch: int, text: str) -> BatchResult:
    return BatchResult(
        batch, 1.5, 0.25, [Decoded("u1", [Reading(text, list(text), -1.0, {"ctc": -1.0})])]
    )


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "test.shards"


def test_what_outlived_a_run_with_another_model_is_not_read(folder):
    """It appends after the new run made the folder its own, and before the new run's result."""
    orphan = results_path(folder, prepare(folder, {"model_sha256": "a"}), job=0)
    append_result(orphan, result(0, "of a"))
    digest = prepare(folder, {"model_sha256": "b"})
    assert not orphan.exists()
    append_result(orphan, result(1, "of a"))
    assert read_results(folder, digest) == {}
    append_result(results_path(folder, digest, job=1), result(1, "of b"))
    assert read_results(folder, digest) == {1: result(1, "of b")}


def test_the_same_key_keeps_its_results(folder):
    first = prepare(folder, {"model_sha256": "a", "config": {"é": 1}})
    append_result(results_path(folder, first, job=0), result(3, "é"))
    digest = prepare(folder, {"config": {"é": 1}, "model_sha256": "a"})
    assert digest == first and len(digest) == 12
    assert read_results(folder, digest) == {3: result(3, "é")}
