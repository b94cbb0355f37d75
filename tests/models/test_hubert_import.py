"""Checkpoints of other toolkits: what is read, the config inferred, the same numbers as theirs."""

import argparse
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from espnet_lite.config import from_plain
from espnet_lite.errors import InputError
from espnet_lite.models.hubert import HubertConfig, HubertModel
from espnet_lite.models.hubert_import import (
    ImportedHubert,
    config_of_hugging_face,
    config_of_shapes,
    import_hubert,
)
from espnet_lite.models.hubert_keys import from_foreign, to_foreign

GOLDEN = Path(__file__).parents[1] / "golden" / "torchaudio_hubert.safetensors"
TINY = {
    "model_type": "hubert",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "conv_dim": [16] * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}


def tiny_weights(**changed) -> dict[str, torch.Tensor]:
    """Return weights for the config.json TINY under Hugging Face's names."""
    torch.manual_seed(0)
    config = config_of_hugging_face({**TINY, **changed})
    state = HubertModel(from_plain(HubertConfig, config), clusters=3).state_dict()
    return to_foreign(state, "hugging_face")


@pytest.fixture
def folder(tmp_path):
    """Return a folder of Hugging Face."""
    (tmp_path / "config.json").write_text(json.dumps(TINY))
    save_file(tiny_weights(), tmp_path / "model.safetensors")
    return tmp_path


def build(imported: ImportedHubert) -> HubertModel:
    """Return the model of an import, which has a head for the units it came with or for one."""
    embeddings = imported.weights.get("head.embeddings", torch.zeros(1, 1))
    config = from_plain(HubertConfig, imported.config)
    model = HubertModel(config, clusters=embeddings.size(0)).eval()
    missing, unexpected = model.load_state_dict(imported.weights, strict=False)
    assert unexpected == [] and all(name.startswith(("head.", "mask_")) for name in missing)
    return model


@pytest.mark.parametrize("size", ["base", "large"])
@pytest.mark.parametrize("layout", ["torchaudio", "fairseq"])
def test_outputs_equal_torchaudios(tmp_path, size, layout):
    """The file that torchaudio would save, and the same weights as fairseq would."""
    golden = load_file(GOLDEN)
    prefix = f"{size}/weights/"
    state = {k.removeprefix(prefix): v for k, v in golden.items() if k.startswith(prefix)}
    if layout == "fairseq":
        state = to_foreign(from_foreign(state, "torchaudio")[0], "fairseq")
    torch.save({"model": state} if layout == "fairseq" else state, tmp_path / "model.pt")
    imported = import_hubert(tmp_path / "model.pt", heads=2)
    assert imported.layout == layout
    front_end, encoder = imported.config["front_end"], imported.config["encoder"]
    assert (front_end["norm"], encoder["name"]) == {
        "base": ("group", "hubert_base"),
        "large": ("layer", "hubert_large"),
    }[size]
    model = build(imported)
    # torchaudio's Wav2Vec2Model leaves the waveform as it is; its pipeline of Large does not.
    assert front_end.pop("normalize") is (size == "large")
    model.front_end.config = from_plain(type(model.front_end.config), _without_name(front_end))
    lengths = golden["waveform_lengths"]
    with torch.no_grad():
        output = model.encode(golden["waveform"], lengths, return_layers=True)
    for row, frames in enumerate(output.lengths.tolist()):
        pairs = [(output.encoded, "encoded"), (output.layers[1], "layer1")]
        pairs.append((output.layers[2], "layer2"))
        for ours, name in pairs:
            expected = golden[f"{size}/{name}/{row}"]
            torch.testing.assert_close(ours[row, :frames], expected, atol=2e-5, rtol=0)


def _without_name(config: dict) -> dict:
    return {key: value for key, value in config.items() if key != "name"}


def test_a_folder_of_hugging_face_gives_its_weights_and_config(folder):
    imported = import_hubert(folder)
    assert imported.layout == "hugging_face"
    assert imported.config == {
        "front_end": {
            "name": "waveform",
            "convolutions": [[16, 10, 5], *[[16, 3, 2]] * 4, *[[16, 2, 2]] * 2],
            "norm": "group",
            "conv_bias": False,
            "normalize": False,
            "dropout": 0.0,
        },
        "encoder": {
            "name": "hubert_base",
            "dim": 32,
            "layers": 2,
            "heads": 4,
            "feed_forward": 48,
            "dropout": 0.1,
            "attention_dropout": 0.1,
            "activation_dropout": 0.1,
            "layerdrop": 0.1,
            "position_kernel": 16,
            "position_groups": 4,
        },
    }
    state = build(imported).state_dict()
    weights = load_file(folder / "model.safetensors")
    assert torch.equal(
        state["encoder.blocks.1.attention.key.weight"],
        weights["encoder.layers.1.attention.k_proj.weight"],
    )
    assert torch.equal(state["mask_embedding"], weights["masked_spec_embed"])


def test_defaults_of_a_config_json_are_transformers():
    transformers = pytest.importorskip("transformers")
    plain = transformers.HubertConfig().to_dict()
    assert config_of_hugging_face({"model_type": "hubert"}) == config_of_hugging_face(plain)


def test_shapes_tell_what_a_config_json_says(folder):
    """All but the heads and the rates of dropout."""
    for changed in ({}, {"feat_extract_norm": "layer", "do_stable_layer_norm": True}):
        said = config_of_hugging_face({**TINY, **changed})
        ours, _ = from_foreign(tiny_weights(**changed), "hugging_face")
        found = config_of_shapes(ours, heads=4)
        for part in ("front_end", "encoder"):
            rates = [key for key in said[part] if "drop" in key]
            assert {key: said[part][key] for key in said[part] if key not in rates} == {
                key: value for key, value in found[part].items() if key not in rates
            }
    with torch.device("meta"):
        for name, heads in (("hubert_base", 12), ("hubert_large", 16)):
            front_end = {"name": "waveform", "norm": "layer" if heads == 16 else "group"}
            plain = {"front_end": front_end, "encoder": {"name": name}}
            state = HubertModel(from_plain(HubertConfig, plain), clusters=1).state_dict()
            assert config_of_shapes(state)["encoder"]["heads"] == heads


def test_several_files_and_old_binaries_are_read_too(folder):
    expected = import_hubert(folder).weights
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    assert import_hubert(folder).weights.keys() == expected.keys()
    names = sorted(state)
    parts = {"a.safetensors": names[:10], "b.safetensors": names[10:]}
    for file, part in parts.items():
        save_file({name: state[name] for name in part}, folder / file)
    weight_map = {name: file for file, part in parts.items() for name in part}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    again = import_hubert(folder).weights
    assert again.keys() == expected.keys()
    assert all(torch.equal(again[name], expected[name]) for name in expected)
    (folder / "b.safetensors").unlink()
    with pytest.raises(InputError, match=r"b\.safetensors: no such file"):
        import_hubert(folder)


def test_half_precision_becomes_single(folder):
    state = load_file(folder / "model.safetensors")
    save_file({name: value.half() for name, value in state.items()}, folder / "model.safetensors")
    assert {value.dtype for value in import_hubert(folder).weights.values()} == {torch.float32}


def test_a_head_of_units_comes_along(tmp_path):
    config = config_of_hugging_face(TINY)
    config["head"] = {"name": "cosine", "dim": 6}
    state = HubertModel(from_plain(HubertConfig, config), clusters=5).state_dict()
    torch.save(to_foreign(state, "torchaudio"), tmp_path / "m.pt")
    imported = import_hubert(tmp_path / "m.pt", heads=4)
    assert imported.config["head"] == {"name": "cosine", "dim": 6}
    assert all(torch.equal(imported.weights[name], state[name]) for name in state)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model_type", "wavlm", "model_type is 'wavlm', expected 'hubert'"),
        ("hidden_act", "relu", "hidden_act is 'relu', expected 'gelu'"),
        ("conv_pos_batch_norm", True, "conv_pos_batch_norm is True, expected False"),
        ("layer_norm_eps", 1e-12, "layer_norm_eps is 1e-12, expected 1e-05"),
        ("hidden_size", "32", "encoder.dim: expected int, found str '32'"),
        ("num_attention_heads", 5, "dim 32 is not a multiple of heads 5"),
        ("conv_stride", [5, 2], "conv_dim, conv_kernel, conv_stride are not equally long"),
        ("feat_extract_norm", "batch", "norm 'batch' is not one of group, layer"),
    ],
)
def test_other_architectures_are_refused(folder, key, value, message):
    (folder / "config.json").write_text(json.dumps({**TINY, key: value}))
    with pytest.raises(InputError) as error:
        import_hubert(folder)
    assert str(folder / "config.json") in str(error.value) and message in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda state: state.pop("encoder.layers.1.final_layer_norm.bias"),
            "no parameter 'encoder.layers.1.final_layer_norm.bias'",
        ),
        (
            lambda state: state.update({"feature_projection.projection.weight": torch.ones(32, 9)}),
            "parameter 'feature_projection.projection.weight' has the shape [32, 9], "
            "expected [32, 16]",
        ),
        (
            lambda state: state.update({"encoder.layers.2.layer_norm.bias": torch.ones(32)}),
            "parameter 'encoder.layers.2.layer_norm.bias' is more than the model has",
        ),
        (
            lambda state: state.update({"quantizer.weight": torch.ones(3)}),
            "parameter 'quantizer.weight' of shape [3] is none of a HuBERT's as hugging_face names",
        ),
    ],
)
def test_weights_that_do_not_fit_are_named(folder, change, message):
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors")
    with pytest.raises(InputError) as error:
        import_hubert(folder)
    assert str(error.value).startswith(f"{folder}: {message}")


def test_a_mask_embedding_may_lack(folder):
    state = load_file(folder / "model.safetensors")
    del state["masked_spec_embed"]
    save_file(state, folder / "model.safetensors")
    assert "mask_embedding" not in import_hubert(folder).weights


def test_what_shapes_do_not_tell_is_asked_for(tmp_path):
    torch.save(tiny_weights(), tmp_path / "m.pt")
    with pytest.raises(InputError, match=r"m\.pt: width 32 .*; name them with --heads N"):
        import_hubert(tmp_path / "m.pt")
    assert import_hubert(tmp_path / "m.pt", heads=4).config["encoder"]["heads"] == 4
    with pytest.raises(InputError, match="dim 32 is not a multiple of heads 5"):
        import_hubert(tmp_path / "m.pt", heads=5)
    kernels = {"conv_kernel": [10, 3, 3, 3, 3, 3, 2]}
    torch.save(tiny_weights(**kernels), tmp_path / "m.pt")
    with pytest.raises(InputError, match=r"kernels \[10, 3, 3, 3, 3, 3, 2\], expected \[10, 3, 3"):
        import_hubert(tmp_path / "m.pt", heads=4)


def test_objects_in_a_pickle_are_not_loaded(tmp_path):
    """fairseq keeps its arguments and dictionaries beside the weights."""
    content = {"model": tiny_weights(), "args": argparse.Namespace(layers=2)}
    torch.save(content, tmp_path / "m.pt")
    with pytest.raises(InputError) as error:
        import_hubert(tmp_path / "m.pt")
    message = str(error.value)
    assert message.startswith(f"{tmp_path}/m.pt: holds objects of argparse.Namespace beside")
    assert "torch.save(torch.load('m.pt', weights_only=False)['model'], 'weights.pt')" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a file of torch.save"),
        (b"RIFF$\x00\x00\x00WAVE", "not a file of torch.save"),
        (b"PK\x03\x04 cut off", "not a whole file of torch.save"),
        (b"\x80\x02", "not a whole file of torch.save"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    (tmp_path / "m.pt").write_bytes(content)
    with pytest.raises(InputError) as error:
        import_hubert(tmp_path / "m.pt")
    assert str(error.value) == f"{tmp_path}/m.pt: {message}"


def test_what_is_no_state_dict_is_refused(tmp_path):
    path = tmp_path / "m.pt"
    torch.save([1, 2], path)
    with pytest.raises(InputError, match="holds a list, expected a state dict of tensors"):
        import_hubert(path)
    torch.save({"epoch": 3}, path)
    with pytest.raises(InputError, match="'epoch' is a int, expected a state dict of tensors"):
        import_hubert(path)
    with pytest.raises(InputError, match=r"nowhere: no such file or folder"):
        import_hubert(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"model\.safetensors: no such file; give a folder with"):
        import_hubert(tmp_path)


def test_broken_json_and_safetensors_are_refused(folder):
    (folder / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"config\.json: not JSON"):
        import_hubert(folder)
    (folder / "model.safetensors").write_bytes(b"no")
    with pytest.raises(InputError, match=r"model\.safetensors: not a safetensors file"):
        import_hubert(folder)
