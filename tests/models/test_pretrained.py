"""A pre-trained encoder gets into a recognizer whole, or is refused by the name of what differs."""

import dataclasses
import errno
import json
import os

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from espnet_lite.config import dump_yaml, from_plain, to_plain
from espnet_lite.encoders.front_end import FRONT_ENDS
from espnet_lite.errors import InputError
from espnet_lite.features.cmvn import CmvnStatistics
from espnet_lite.models.asr import AsrConfig, AsrModel
from espnet_lite.models.hubert import HubertConfig, HubertModel
from espnet_lite.models.pretrained import load_pretrained_weights, read_pretrained, write_encoder
from espnet_lite.runtime.format import write_packed

FRONT_END = {"name": "log_mel", "num_mels": 20, "channels": 3}
ENCODER = {"name": "transformer", "dim": 16, "layers": 2, "heads": 2, "feed_forward": 24}


def build(schema, front_end=FRONT_END, encoder=ENCODER, *, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    config = from_plain(schema, {"front_end": front_end, "encoder": encoder})
    if schema is AsrConfig:
        return AsrModel(config, vocab=7)
    return HubertModel(config, clusters=5)


@pytest.fixture
def hubert() -> HubertModel:
    model = build(HubertConfig)
    total = torch.arange(20.0, dtype=torch.float64)
    model.front_end.cmvn.set_statistics(CmvnStatistics(10, total, total.square() + 3))
    return model.eval()


@pytest.fixture
def expdir(hubert, tmp_path):
    folder = tmp_path / "exp" / "hubert"
    folder.mkdir(parents=True)
    plain = {"model": to_plain(hubert.config), "train": {"updates": 3}}
    (folder / "config.yaml").write_text(dump_yaml(plain))
    save_file(hubert.state_dict(), folder / "model.safetensors")
    return folder


def outputs(model: nn.Module) -> torch.Tensor:
    waveform = torch.randn(2, 8000, generator=torch.Generator().manual_seed(1)) * 0.1
    with torch.no_grad():
        output = model.eval().encode(waveform, torch.tensor([8000, 6000]))
    return output.encoded


def test_a_recognizer_encodes_as_the_pretraining_did(hubert, expdir):
    weights, config = read_pretrained(expdir)
    assert config == to_plain(hubert.config)
    front_end = {**FRONT_END, "spec_augment": {"time_masks": 0}}
    encoder = {**ENCODER, "dropout": 0.3, "attention_dropout": 0.2}  # may differ
    asr = build(AsrConfig, front_end, encoder, seed=1)
    head = asr.ctc_head.weight.clone()
    assert not torch.allclose(outputs(asr), outputs(hubert), atol=0.1)
    load_pretrained_weights(asr, weights, where=expdir, pretrained_config=config)
    assert torch.equal(outputs(asr), outputs(hubert))
    assert torch.equal(asr.front_end.cmvn.mean, hubert.front_end.cmvn.mean)
    assert torch.equal(asr.ctc_head.weight, head)


def test_the_one_file_holds_matrices_in_bf16_and_the_rest_as_it_is(hubert, expdir, tmp_path):
    path = tmp_path / "encoder.safetensors"
    weights, config = read_pretrained(expdir)
    write_encoder(path, weights, config)
    with safe_open(path, framework="pt") as file:
        assert json.loads(file.metadata()["config"]) == {
            "front_end": config["front_end"],
            "encoder": config["encoder"],
        }
    found, parts = read_pretrained(path)
    assert parts.keys() == {"front_end", "encoder"}
    assert set(found) == {n for n in weights if n.startswith(("front_end.", "encoder."))}
    for name, tensor in found.items():
        assert tensor.dtype == torch.float32
        # Seven bits follow the leading one: half a unit is at most 2^-8 of the value.
        bound = 2**-8 if tensor.ndim > 1 else 0.0
        assert bool(((tensor - weights[name]).abs() <= bound * weights[name].abs()).all()), name
    asr = build(AsrConfig, seed=1)
    load_pretrained_weights(asr, found, where=path, pretrained_config=parts)
    torch.testing.assert_close(outputs(asr), outputs(hubert), atol=0.1, rtol=0)
    first = path.read_bytes()
    assert len(first) < (expdir / "model.safetensors").stat().st_size
    write_encoder(path, weights, config)
    assert path.read_bytes() == first


def test_with_its_heads_a_pretraining_can_go_on(hubert, expdir, tmp_path):
    path = tmp_path / "whole.safetensors"
    write_encoder(path, *read_pretrained(expdir), keep_heads=True)
    weights, config = read_pretrained(path)
    assert config == to_plain(hubert.config) and weights.keys() == hubert.state_dict().keys()


def packed(model: AsrModel, path, **header):
    architecture = {**to_plain(model.config), "vocab": 7}
    header = {"architecture": architecture, "policy": {"weights": "fp32"}, **header}
    write_packed(path, model.state_dict(), header)
    return path


def test_a_packed_recognizer_is_a_beginning_too(tmp_path):
    source = build(AsrConfig, seed=5)
    weights, config = read_pretrained(packed(source, tmp_path / "asr.esp"))
    other = build(AsrConfig, seed=6)
    head = other.ctc_head.weight.clone()
    load_pretrained_weights(other, weights, where=tmp_path, pretrained_config=config)
    assert torch.equal(outputs(other), outputs(source)) and torch.equal(other.ctc_head.weight, head)


def test_integers_are_not_a_beginning(tmp_path):
    path = packed(build(AsrConfig), tmp_path / "few_bits.esp", quantized={"rules": []})
    with pytest.raises(InputError, match="is quantized, a training begins in floating point"):
        read_pretrained(path)


def test_every_front_end_gets_across(tmp_path):
    """Of each family's smallest sizes; all names, buffers included."""
    for name in FRONT_ENDS:
        pretrained = build(HubertConfig, {"name": name}, seed=3)
        path = tmp_path / f"{name}.safetensors"
        save_file(
            pretrained.state_dict(),
            path,
            metadata={"config": json.dumps(to_plain(pretrained.config))},
        )
        asr = build(AsrConfig, {"name": name}, seed=4)
        weights, config = read_pretrained(path)
        load_pretrained_weights(asr, weights, where=path, pretrained_config=config)
        assert torch.equal(outputs(asr), outputs(pretrained)), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"front_end": {"num_mels": 40}}, "front_end.num_mels 20, not 40"),
        ({"front_end": {"sample_rate": 8000}}, "front_end.sample_rate 16000, not 8000"),
        ({"front_end": {"cmvn": "utterance"}}, "front_end.cmvn 'global', not 'utterance'"),
        ({"encoder": {"heads": 4}}, "encoder.heads 2, not 4"),  # no weight tells it
        ({"encoder": {"activation": "gelu"}}, "encoder.activation 'relu', not 'gelu'"),
        (
            {"encoder": {"dim": 32, "layers": 3}},
            "architecture than the model's: encoder.dim 16, not 32, encoder.layers 2, not 3;",
        ),
    ],
)
def test_another_architecture_names_each_key_with_both_values(expdir, change, message):
    weights, config = read_pretrained(expdir)
    front_end = {**FRONT_END, **change.get("front_end", {})}
    asr = build(AsrConfig, front_end, {**ENCODER, **change.get("encoder", {})})
    before = {name: value.clone() for name, value in asr.state_dict().items()}
    with pytest.raises(InputError) as raised:
        load_pretrained_weights(asr, weights, where=expdir, pretrained_config=config)
    text = str(raised.value)
    assert text.startswith(f"{expdir}: ") and message in text
    assert text.endswith(f"use the model.front_end and model.encoder of {expdir}/config.yaml")
    assert all(torch.equal(before[name], value) for name, value in asr.state_dict().items())


def test_another_kind_of_encoder_is_named(expdir):
    weights, config = read_pretrained(expdir)
    config["encoder"]["name"] = "conformer"
    with pytest.raises(InputError, match=r"encoder\.name 'conformer', not 'transformer'"):
        load_pretrained_weights(build(AsrConfig), weights, where=expdir, pretrained_config=config)


def test_a_key_newer_than_the_pretraining_has_its_default(expdir):
    weights, config = read_pretrained(expdir)
    del config["encoder"]["positions"]
    load_pretrained_weights(build(AsrConfig), weights, where=expdir, pretrained_config=config)
    rotary = build(AsrConfig, FRONT_END, {**ENCODER, "positions": "rotary"})
    with pytest.raises(InputError, match="positions 'sinusoidal', not 'rotary'"):
        load_pretrained_weights(rotary, weights, where=expdir, pretrained_config=config)


def test_without_a_configuration_the_first_weight_that_differs_is_named(expdir):
    weights, _ = read_pretrained(expdir)
    path = expdir / "model.safetensors"
    fix = "; use the model.front_end and model.encoder of the pre-training of model.safetensors"
    norm = "encoder.blocks.1.attention_norm.weight"
    without = {name: value for name, value in weights.items() if name != norm}
    cases = [
        (without, ENCODER, f"{path}: no weight '{norm}', which the model has{fix}"),
        (
            weights,
            {**ENCODER, "layers": 1},
            "weight 'encoder.blocks.1.attention.key.bias', which the model does not have",
        ),
        (
            weights,
            {**ENCODER, "feed_forward": 30},
            "weight 'encoder.blocks.0.feed_forward.",
        ),
        (
            weights,
            {**ENCODER, "feed_forward": 30},
            "has the shape [24, 16], the model's is [30, 16]",
        ),
    ]
    for given, encoder, message in cases:
        with pytest.raises(InputError) as raised:
            load_pretrained_weights(build(AsrConfig, FRONT_END, encoder), given, where=path)
        assert message in str(raised.value)


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda d: (d / "model.safetensors").unlink(), "model.safetensors: no such file; train it"),
        (lambda d: (d / "config.yaml").unlink(), "config.yaml: no such file"),
        (lambda d: (d / "config.yaml").write_text("train: {}\n"), "hubert: describes no front_end"),
        (lambda d: (d / "model.safetensors").write_text("x"), "not a safetensors file"),
    ],
)
def test_what_is_no_pretraining_is_refused(expdir, break_it, message):
    break_it(expdir)
    with pytest.raises(InputError) as raised:
        read_pretrained(expdir)
    assert message in str(raised.value)


@pytest.mark.parametrize("metadata", [None, {"config": "{"}, {"config": '{"encoder": {}}'}])
def test_a_file_that_describes_nothing_is_refused(tmp_path, metadata):
    path = tmp_path / "x.safetensors"
    save_file({"encoder.x": torch.zeros(2)}, path, metadata=metadata)
    with pytest.raises(InputError, match=r"x\.safetensors: describes no front_end and encoder"):
        read_pretrained(path)
    with pytest.raises(InputError, match=r"none\.safetensors: no such file"):
        read_pretrained(tmp_path / "none.safetensors")


def test_a_full_disk_leaves_no_half_of_a_file(expdir, tmp_path, monkeypatch):
    weights, config = read_pretrained(expdir)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(InputError, match=r"e\.safetensors: cannot write: No space left"):
        write_encoder(tmp_path / "e.safetensors", weights, config)
    assert [path.name for path in tmp_path.iterdir()] == ["exp"]


def test_what_may_differ_is_only_of_training():
    """Each such key of each family is one that changes nothing in eval mode."""
    from espnet_lite.encoders.families import ENCODERS
    from espnet_lite.models.pretrained import _may_differ

    keys = {
        field.name
        for family in (FRONT_ENDS, ENCODERS)
        for schema, _ in family.values()
        for field in dataclasses.fields(schema)
    }
    allowed = {key for key in keys if _may_differ(key)}
    assert {"spec_augment", "dropout", "attention_dropout"} <= allowed
    assert all("drop" in key or key == "spec_augment" for key in allowed)
    assert not {key for key in keys - allowed if "drop" in key}
