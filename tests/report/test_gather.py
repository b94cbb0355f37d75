"""What a recipe's folders give: every utterance where it is there, rows from JSON where it is not."""

import json
import shutil

import pytest

from espnet_lite.report.gather import gather
from espnet_lite.score.results import read_rows


@pytest.fixture
def copied(recipe, tmp_path):
    """Return a copy of the recipe's folder that a test may change."""
    folder = tmp_path / "copy"
    shutil.copytree(recipe.folder, folder)
    return folder


def gathered(folder, *, audio: bool = False) -> dict:
    exp = folder / "exp"
    return gather(folder, read_rows(folder), expdir=exp, page=exp / "report.html", audio=audio)


def aligned(table: dict, row: str, utterance: str) -> tuple[str, str, str]:
    """Return reference, hypothesis and steps of an utterance, as the page takes them from a table."""
    place = table["ids"].index(utterance)
    reference = table["references"][table["rows"][row]["reference"]][place]
    outcome = table["rows"][row]["outcomes"][place]
    if outcome == 0:
        return reference, reference, "C" * len(reference.split())
    return reference, outcome[1], outcome[0]


def test_every_utterance_comes_back(recipe):
    data = gathered(recipe.folder)
    for name, utterances in recipe.sets.items():
        table = data["utterances"][name]
        assert sorted(table["ids"]) == sorted(utterances)
        assert table["seconds"] == [0.25] * len(utterances)
        assert table["speakers"] == [one.partition("-")[0] for one in table["ids"]]
        for utterance, (reference, *hypotheses) in utterances.items():
            for row, hypothesis in zip(("first", "second"), hypotheses, strict=True):
                found = aligned(table, row, utterance)
                assert found[:2] == (reference, hypothesis)
    assert aligned(data["utterances"]["dev"], "first", "anna-2")[2] == "DCC"
    assert aligned(data["utterances"]["dev"], "first", "bert-1")[2] == "CCCI"
    assert json.loads(json.dumps(data, allow_nan=False)) == data


def test_rows_and_what_else_there_is(recipe):
    data = gathered(recipe.folder)
    assert data["title"] == "a <b>/asr1"
    assert [row["row"] for row in data["rows"]] == ["second", "first"]  # by dev WER
    assert data["sets"] == ["dev", "test"]
    assert all("speakers" not in row["scores"]["dev"]["wer"] for row in data["rows"])
    assert [training["name"] for training in data["trainings"]] == ["asr_tiny"]
    assert [units["name"] for units in data["units"]] == ["units_tiny"]
    assert data["efficiency"] == [] and data["pretrainings"]["rows"] == []


def test_audio_is_pointed_at_from_the_page(recipe):
    table = gathered(recipe.folder, audio=True)["utterances"]["test"]
    assert table["audio"] == ["../dump/the%20audio/cleo-1.wav", "../dump/the%20audio/cleo-2.wav"]


def test_a_row_without_its_folders_is_shown_from_its_json(copied):
    shutil.rmtree(copied / "exp" / "packed_first")
    (copied / "exp" / "packed_second" / "decode_greedy" / "dev" / "score" / "score.json").unlink()
    data = gathered(copied)
    assert [row["row"] for row in data["rows"]] == ["second", "first"]
    assert {name: list(table["rows"]) for name, table in data["utterances"].items()} == {
        "test": ["second"]
    }


def change_json(path, change) -> None:
    plain = json.loads(path.read_text())
    change(plain)
    path.write_text(json.dumps(plain))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("decode.json", lambda plain: plain["model"].update(sha256="0" * 64)),
        ("decode.json", lambda plain: plain["config"].update(method="ctc_beam")),
        ("score/score.json", lambda plain: plain["wer"]["counts"].update(err=0)),
    ],
)
def test_a_folder_of_another_model_decoding_or_score_is_not_taken(copied, name, change):
    change_json(copied / "exp" / "packed_first" / "decode_greedy" / "dev" / name, change)
    assert list(gathered(copied)["utterances"]["dev"]["rows"]) == ["second"]


def test_an_utterance_that_only_one_row_has(copied):
    path = copied / "exp/packed_first/decode_greedy/dev/score/utterances.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[1:]), encoding="utf-8")
    table = gathered(copied)["utterances"]["dev"]
    place = table["ids"].index("anna-1")
    assert table["rows"]["first"]["outcomes"][place] is None
    assert table["rows"]["second"]["outcomes"][place] == 0
    assert aligned(table, "first", "anna-2")[:2] == ("on a mat", "a mat")


def test_no_dump_folder_no_audio_and_no_seconds(copied, recipe):
    for row in ("first", "second"):
        path = copied / "exp" / f"packed_{row}" / "decode_greedy" / "dev" / "decode.json"
        change_json(path, lambda plain: plain.update(data_dir=str(copied / "gone")))
    table = gathered(copied, audio=True)["utterances"]["dev"]
    assert set(table["audio"]) == set(table["seconds"]) == {None}
