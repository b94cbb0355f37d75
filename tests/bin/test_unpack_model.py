"""A packed recognizer becomes an experiment again, which packs to the same file's weights."""

from pathlib import Path

import pytest
import torch

from espnet_lite.bin import pack_model, unpack_model
from espnet_lite.runtime.format import read_packed, write_packed

RECIPE = Path(__file__).resolve().parents[2] / "egs" / "an4" / "asr1"
MODEL = RECIPE / "models" / "asr_bpe30_bf16.esp"


def run(expdir, *options, config="train_asr.yaml"):
    given = ["--model", str(MODEL), "--config", str(RECIPE / "conf" / config)]
    return unpack_model.main([*given, "--expdir", str(expdir), *options])


def test_packs_to_what_it_was(tmp_path):
    assert run(tmp_path / "exp") == 0
    again = tmp_path / "again.esp"
    policy = RECIPE / "conf" / "quantize_bf16.yaml"
    given = ["--expdir", str(tmp_path / "exp"), "--config", str(policy), "--output", str(again)]
    assert pack_model.main(given) == 0
    (first, tensors), (second, found) = read_packed(MODEL), read_packed(again)
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
    for key in ("tokenizer", "record"):
        assert second[key] == first[key], key
    for part in (
        "encoder",
        "decoder",
        "vocab",
    ):  # the front end has keys that are newer than the file
        assert second["architecture"][part] == first["architecture"][part]


@pytest.mark.parametrize(
    ("options", "config", "message"),
    [
        ((), "train_asr_conformer_4m.yaml", "encoder.name 'transformer', not 'conformer'"),
        (("--set", "model.decoder=null"), "train_asr.yaml", "weight 'decoder."),
        (("--set", "model.decoder.layers=3"), "train_asr.yaml", "the packed model lacks it"),
    ],
)
def test_another_model_is_refused(tmp_path, capsys, options, config, message):
    assert run(tmp_path / "exp", *options, config=config) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "exp").exists()


def test_an_experiment_is_not_overwritten(tmp_path, capsys):
    assert run(tmp_path) == 2
    assert "is there already" in capsys.readouterr().err


@pytest.mark.parametrize("part", ["record", "tokenizer"])
def test_a_header_without_a_part_is_one_line(tmp_path, capsys, part):
    header, tensors = read_packed(MODEL)
    foreign = tmp_path / "foreign.esp"
    write_packed(foreign, tensors, {key: value for key, value in header.items() if key != part})
    given = ["--model", str(foreign)]
    config = ["--config", str(RECIPE / "conf" / "train_asr.yaml"), "--expdir", str(tmp_path / "e")]
    assert unpack_model.main([*given, *config]) == 2
    assert f"'{part}' of its header is None" in capsys.readouterr().err
    policy = ["--config", str(RECIPE / "conf" / "quantize_bf16.yaml")]
    assert pack_model.main([*given, *policy, "--output", str(tmp_path / "again.esp")]) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["foreign.esp"]
