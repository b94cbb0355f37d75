"""The record of a pre-training and its row, by hand; what is no record is refused by its name."""

import json
from copy import deepcopy

import pytest

from espnet_lite.bin import write_pretraining
from espnet_lite.errors import InputError
from espnet_lite.score.pretraining import build_pretraining, pretraining_rows, read_pretrainings

RECORD = {
    "parameters": 4_256_000,
    "updates": 12000,
    "minutes": 93.04,
    "core_minutes": 180.46,
    "audio_hours": 201.25,
    "dev": {"loss": 3.1, "accuracy": 0.4567, "accuracy_unmasked": None},
    "command": "train_hubert …",
}
UNITS = {
    "clusters": 100,
    "features": {"name": "mfcc", "ceps": 13},
    "quality": {"used_clusters": 99, "mean_segment_ms": 41.6},
    "shift_samples": 160,
    "sample_rate": 16000,
    "fit": {"frames": 7},
}
PHONES = {
    "with_silence": {"pnmi": 0.2584, "phone_purity": 0.2912, "frames": 10},
    "speech": {"pnmi": 0.2, "phone_purity": 0.2, "frames": 8},
    "alignments": ["somewhere"],
}


def build(**changes) -> dict:
    parts = {"record": RECORD, "units": UNITS, "phones": PHONES, **changes}
    return build_pretraining("pretrain_it1", **parts)


def test_a_row_by_hand():
    header, [row] = pretraining_rows([build()])
    assert dict(zip(header, row, strict=True)) == {
        "pre-training": "pretrain_it1",
        "parameters": "4.26 M",
        "updates": "12,000",
        "minutes": "93.0",
        "core-minutes": "180.5",
        "audio hours": "201.2",
        "units of": "mfcc",
        "units": "99 of 100",
        "segment ms": "42",
        "PNMI": "0.258",
        "phone purity": "0.291",
        "masked acc. %": "45.7",
        "unmasked acc. %": "-",  # it was not finite
    }


def test_units_of_a_layer_and_no_phones():
    features = {"name": "layer", "model": "pretrain_it1", "layer": 4}
    _, [row] = pretraining_rows([build(units={**UNITS, "features": features}, phones=None)])
    assert row[6] == "pretrain_it1, block 4" and row[9:11] == ["-", "-"]


def test_the_record_keeps_what_others_wrote_and_no_place_of_this_machine():
    built = build()
    assert built["record"] == RECORD and built["record"] is not RECORD
    assert built["units"] == {key: value for key, value in UNITS.items() if key != "fit"}
    assert built["phones"] == {key: PHONES[key] for key in ("with_silence", "speech")}
    assert build(phones=None)["phones"] is None


@pytest.mark.parametrize(
    ("part", "path", "named"),
    [
        ("record", ["core_minutes"], "record.core_minutes"),
        ("units", ["quality"], "units.quality"),
        ("units", ["quality", "mean_segment_ms"], "units.quality.mean_segment_ms"),
        ("phones", ["with_silence"], "phones.with_silence"),
        ("phones", ["with_silence", "pnmi"], "phones.with_silence.pnmi"),
        ("phones", ["speech"], "phones.speech"),
    ],
)
def test_what_lacks_a_number_of_the_table_is_refused(tmp_path, part, path, named):
    parts = deepcopy({"record": RECORD, "units": UNITS, "phones": PHONES})
    whole = deepcopy(build())
    for found in (parts[part], whole[part]):
        for name in path[:-1]:
            found = found[name]
        found.pop(path[-1])
    with pytest.raises(InputError, match=rf"pretrain_it1: no '{named}', expected the record"):
        build(**parts)
    folder = tmp_path / "results" / "pretraining"
    folder.mkdir(parents=True)
    (folder / "a.json").write_text(json.dumps(whole))
    with pytest.raises(InputError, match=rf"a\.json: no '{named}'"):
        read_pretrainings(tmp_path)


def test_the_program_writes_the_record_and_names_what_is_missing(tmp_path, capsys):
    (tmp_path / "exp").mkdir()
    (tmp_path / "units").mkdir()
    arguments = ["--name", "pretrain_it1", "--expdir", str(tmp_path / "exp")]
    arguments += ["--units", str(tmp_path / "units"), "--results_dir", str(tmp_path)]
    assert write_pretraining.main(arguments) == 2
    assert "model.json: no such file; pre-train: ./run.sh" in capsys.readouterr().err
    (tmp_path / "exp" / "model.json").write_text(json.dumps(RECORD))
    (tmp_path / "units" / "units.json").write_text("{")
    assert write_pretraining.main(arguments) == 2
    error = capsys.readouterr().err
    assert "units.json:1: not JSON" in error and error.count("\n") == 1
    (tmp_path / "units" / "units.json").write_text(json.dumps(UNITS))
    (tmp_path / "phones.json").write_text(json.dumps(PHONES))
    assert write_pretraining.main([*arguments, "--phones", str(tmp_path / "phones.json")]) == 0
    assert read_pretrainings(tmp_path) == [build()]
    assert read_pretrainings(tmp_path / "exp") == []
