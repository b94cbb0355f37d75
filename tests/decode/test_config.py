"""Decoding YAMLs: the method decides which keys there are, and numbers have ranges."""

import pytest

from espnet_lite.config import to_plain
from espnet_lite.decode.config import METHODS, JointBeamConfig, load_decode_config
from espnet_lite.decode.searches import SEARCHES
from espnet_lite.errors import InputError


def load(tmp_path, text: str, *overrides: str):
    (tmp_path / "decode.yaml").write_text(text)
    return load_decode_config(tmp_path / "decode.yaml", list(overrides))


def test_every_method_has_a_schema_and_a_search():
    assert METHODS.keys() == SEARCHES.keys()
    assert all(schema().method == name for name, schema in METHODS.items())


def test_what_is_read(tmp_path):
    config = load(tmp_path, "method: joint_beam\nbeam_size: 20\nctc_weight: 0.5\n", "penalty=1")
    assert config == JointBeamConfig(beam_size=20, ctc_weight=0.5, penalty=1.0)
    assert config.needs_decoder
    assert not load(tmp_path, "method: joint_beam\nctc_weight: 1.0\n").needs_decoder
    assert to_plain(load(tmp_path, "")) == {"method": "ctc_greedy", "batch_seconds": 60.0}
    assert load(tmp_path, "", "method=ctc_beam", "token_beam=3").token_beam == 3


@pytest.mark.parametrize(
    "text, message",
    [
        ("method: joint_beem", r"unknown method 'joint_beem' \(did you mean 'joint_beam'\?\)"),
        ("method: [joint_beam]", r"unknown method '\['joint_beam'\]'"),
        ("method: ctc_greedy\nbeam_size: 5", r"unknown key 'beam_size'"),
        ("method: ctc_beam\nctc_weight: 0.3", r"unknown key 'ctc_weight'"),
        ("batch_seconds: 0", r"batch_seconds 0.0 is not above 0"),
        ("method: ctc_beam\nbeam_size: 0", r"beam_size 0 is not at least 1"),
        (
            "method: joint_beam\nbeam_size: 5000",
            r"beam_size 5000 is not at least 1 and at most 1000",
        ),
        ("method: ctc_beam\nnbest: 11", r"nbest 11 is not at least 1 and at most 10"),
        ("method: ctc_beam\ntoken_beam: 0", r"token_beam 0 is not at least 1"),
        ("method: ctc_beam\ntoken_margin: .nan", r"token_margin nan is not above 0"),
        ("method: joint_beam\nctc_weight: 1.5", r"ctc_weight 1.5 is not at least 0 and at most 1"),
        ("method: joint_beam\nctc_weight: .nan", r"ctc_weight nan is not at least 0"),
        ("method: joint_beam\npenalty: .inf", r"penalty inf is not at least -100"),
        ("method: joint_beam\nmaxlenratio: -0.5", r"maxlenratio -0.5 is a number of tokens"),
        ("method: joint_beam\nmaxlenratio: 99", r"maxlenratio 99.0 is not at least"),
        (
            "method: joint_beam\nmaxlenratio: 0.2\nminlenratio: 0.3",
            r"minlenratio 0.3 asks for more than maxlenratio 0.2 allows",
        ),
        (
            "method: joint_beam\nmaxlenratio: -4\nminlenratio: -5",
            r"minlenratio -5.0 asks for more than maxlenratio -4.0 allows",
        ),
        ("method: joint_beam\nbeam_size: 2.5", r"beam_size: expected int, found float 2.5"),
    ],
)
def test_what_is_refused(tmp_path, text, message):
    with pytest.raises(InputError, match=message) as error:
        load(tmp_path, text)
    assert str(error.value).startswith(f"{tmp_path / 'decode.yaml'}: ")
