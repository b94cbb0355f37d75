"""Every module that multiplies has a kind, whatever family it comes from."""

import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

import espnet_lite
from espnet_lite.decode.families import TransformerDecoderConfig
from espnet_lite.encoders.families import ENCODERS
from espnet_lite.encoders.front_end import FRONT_ENDS
from espnet_lite.models.asr import AsrConfig, AsrModel
from espnet_lite.models.hubert import HubertConfig, HubertModel, SoftmaxHeadConfig
from espnet_lite.nn.kinds import KINDS, TABLE, module_kinds
from espnet_lite.profile.macs import profile_shapes
from espnet_lite.profile.network import Subject

SMALL = ENCODERS["transformer"][0](dim=8, layers=1, heads=2, feed_forward=16)


LOG_MEL = FRONT_ENDS["log_mel"][0]()


@pytest.mark.parametrize(
    ("front_end", "encoder"),
    [
        *((LOG_MEL, config()) for config, _ in ENCODERS.values()),
        *((config(), SMALL) for config, _ in FRONT_ENDS.values()),
    ],
    ids=[*ENCODERS, *FRONT_ENDS],
)
def test_all_macs_of_a_family_are_of_a_kind(front_end, encoder):
    subject = Subject(Path("x.yaml"), "config", front_end, encoder, vocab=10)
    shapes = profile_shapes(subject, [16000])  # which raises where one is of none
    assert set(shapes.utterances[0].by_kind) <= set(KINDS)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_matrix_of_an_encoder_is_of_a_kind(encoder):
    with FakeTensorMode():
        model = ENCODERS[encoder][1](ENCODERS[encoder][0]())
    kinds = module_kinds(model)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1 and not name.endswith("bias"):  # those of heads have two axes
            assert name.rpartition(".")[0] in kinds, name


def test_a_recognizer_with_its_decoder():
    config = AsrConfig(
        encoder=SMALL, decoder=TransformerDecoderConfig(layers=1, heads=2, feed_forward=16)
    )
    kinds = module_kinds(AsrModel(config, vocab=5))
    assert kinds["ctc_head"] == "head" and kinds["front_end.fbank"] == "features"
    assert kinds["encoder.blocks.0.attention.query"] == "attention_linear"
    assert kinds["encoder.blocks.0.attention.dot_product"] == "attention_matmul"
    assert kinds["encoder.blocks.0.feed_forward.contract"] == "feed_forward"
    assert {kind for name, kind in kinds.items() if name.startswith("decoder")} == {"decoder"}
    assert "decoder.blocks.0.cross_attention.query" in kinds and "decoder.embedding" in kinds
    assert not any("norm" in name or "dropout" in name for name in kinds)


def test_a_pre_training_with_its_heads():
    for head in (None, SoftmaxHeadConfig()):
        config = HubertConfig(encoder=SMALL, inner_layers=(1,), **({"head": head} if head else {}))
        kinds = module_kinds(HubertModel(config, clusters=7))
        assert kinds["head"] == kinds["inner_heads.1.1.project"] == "head"


class Unknown(nn.Module):
    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner


@pytest.mark.parametrize("inner", [nn.Linear(2, 2), nn.Conv1d(2, 2, 1), nn.Embedding(2, 2)])
def test_a_module_of_no_kind_is_named(inner):
    with pytest.raises(ValueError, match=rf"{type(inner).__name__} '0\.inner' is of no kind"):
        module_kinds(nn.Sequential(Unknown(inner)))
    assert module_kinds(nn.Sequential(Unknown(nn.LayerNorm(2)))) == {}


def test_a_kind_holds_for_all_inside_and_parents_lines_for_subclasses(monkeypatch):
    monkeypatch.setitem(TABLE, "Unknown", {"inner": "head"})
    heir = type("Heir", (Unknown,), {})
    model = heir(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))
    assert module_kinds(model) == {"inner.0": "head"}
    monkeypatch.setitem(TABLE, "Heir", "decoder")
    assert module_kinds(model) == {"": "decoder", "inner.0": "decoder"}


def test_the_table_names_classes_that_exist_their_attributes_and_known_kinds():
    classes = {}
    for found in pkgutil.walk_packages(espnet_lite.__path__, "espnet_lite."):
        if found.name.split(".")[1] in (
            "features",
            "nn",
            "encoders",
            "quantize",
            "models",
            "runtime",
            "profile",
        ):
            module = importlib.import_module(found.name)
            for name, cls in inspect.getmembers(module, inspect.isclass):
                if issubclass(cls, nn.Module) and cls.__module__ == found.name:
                    assert name not in classes, f"two classes are named {name}"
                    classes[name] = cls
    assert set(TABLE) <= set(classes)
    for name, line in TABLE.items():
        for kind in [line] if isinstance(line, str) else line.values():
            assert kind in KINDS, name
        for attribute in [] if isinstance(line, str) else line:
            assert f"self.{attribute} =" in inspect.getsource(classes[name]), name
