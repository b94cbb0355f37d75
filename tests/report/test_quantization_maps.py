"""Error analyses as maps."""

import json

import pytest

from espnet_lite.errors import InputError
from espnet_lite.report.quantization_maps import read_quantization_maps


def write(folder, units: list[dict]) -> None:
    folder = folder / "results" / "quantization_errors"
    folder.mkdir(parents=True)
    plain = {"name": "x_w1a8", "encoder": "x", "units": units}
    (folder / "x_w1a8.json").write_text(json.dumps(plain))


def unit(name: str, own: float) -> dict:
    return {"name": name, "kind": "k", "own": own, "propagated": 2 * own, "interaction": 0}


def test_units_stand_by_place_and_block(tmp_path):
    units = [
        unit("encoder.blocks.0.attention", 0.1),
        unit("encoder.blocks.0.feed_forward.module", 0.2),
        unit("encoder.blocks.2.attention", 0.3),
    ]
    write(tmp_path, units)
    [found] = read_quantization_maps(tmp_path)
    assert (found["name"], found["encoder"], found["blocks"]) == ("x_w1a8", "x", 3)
    assert found["parts"]["own"] == {
        "attention": [0.1, None, 0.3],
        "feed forward": [0.2, None, None],
    }
    assert found["parts"]["propagated"]["attention"] == [0.2, None, 0.6]


def test_no_analysis_is_none(tmp_path):
    assert read_quantization_maps(tmp_path) == []


@pytest.mark.parametrize(
    ("units", "message"),
    [
        ([{"name": "encoder.blocks.0.attention", "own": 0.1}], "missing key 'propagated'"),
        ([unit("encoder.head", 0.1)], "unit 'encoder.head', expected encoder.blocks.<number>"),
    ],
)
def test_what_is_no_analysis_is_named(tmp_path, units, message):
    write(tmp_path, units)
    with pytest.raises(InputError, match=message) as caught:
        read_quantization_maps(tmp_path)
    assert "x_w1a8.json" in str(caught.value)
