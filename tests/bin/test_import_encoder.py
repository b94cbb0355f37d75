"""import_encoder: a checkpoint in, an experiment folder out, one line for a fault."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from espnet_lite.bin import import_encoder
from espnet_lite.config import from_plain, read_yaml
from espnet_lite.models.hubert import HubertConfig, HubertModel
from espnet_lite.models.hubert_keys import to_foreign
from espnet_lite.tasks.hubert import PretrainConfig, load_pretrained

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


@pytest.fixture
def checkpoint(tmp_path):
    """Return a folder that transformers saved, of a model fine-tuned with CTC."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    model = transformers.HubertForCTC(transformers.HubertConfig(**TINY))
    model.save_pretrained(tmp_path / "hub")
    return tmp_path / "hub"


def run(*arguments: object) -> int:
    return import_encoder.main([str(argument) for argument in arguments])


def test_a_folder_of_transformers_becomes_a_pre_training(checkpoint, tmp_path, capsys):
    transformers = pytest.importorskip("transformers")
    exp = tmp_path / "exp" / "hubert"
    assert run("--checkpoint", checkpoint, "--output", exp) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{exp}: hubert_base, 2 layers of 32, 0.02 M parameters from hugging_face",
        "  left out what was fine-tuned on top: lm_head.bias, lm_head.weight",
    ]
    assert {path.name for path in exp.iterdir()} == {"config.yaml", "model.safetensors"}
    text = (exp / "config.yaml").read_text()
    assert text.startswith("# Imported from hub, hugging_face.\nmodel:\n  front_end:\n")
    from_plain(PretrainConfig, read_yaml(exp / "config.yaml"))
    model = load_pretrained(exp)
    waveform = 0.1 * torch.randn(1, 4000)
    with torch.no_grad():
        ours = model.encode(waveform, torch.tensor([4000])).encoded
        theirs = transformers.HubertModel.from_pretrained(checkpoint).eval()(waveform)
    torch.testing.assert_close(ours, theirs.last_hidden_state, atol=1e-5, rtol=0)


@pytest.mark.parametrize("layout", ["torchaudio", "fairseq"])
def test_a_file_becomes_a_pre_training(tmp_path, layout, capsys):
    config = {
        "front_end": {
            "name": "waveform",
            "convolutions": [[8, k, 2] for k in (10, 3, 3, 3, 3, 2, 2)],
        },
        "encoder": {"name": "hubert_base", "dim": 8, "layers": 1, "heads": 2, "feed_forward": 6},
    }
    config["encoder"] |= {"position_kernel": 4, "position_groups": 2}
    state = HubertModel(from_plain(HubertConfig, config), clusters=3).state_dict()
    torch.save({"model": to_foreign(state, layout)}, tmp_path / "m.pt")
    arguments = ["--checkpoint", tmp_path / "m.pt", "--output", tmp_path / "exp", "--heads", 2]
    assert run(*arguments, "--format", layout) == 0
    weights = load_file(tmp_path / "exp" / "model.safetensors")
    if layout == "fairseq":  # whose first four rows are no units
        del weights["head.embeddings"], state["head.embeddings"]
    assert weights.keys() == state.keys()
    assert all(torch.equal(weights[name], state[name]) for name in state)
    assert read_yaml(tmp_path / "exp" / "config.yaml")["model"]["head"]["dim"] == 256
    assert capsys.readouterr().out.endswith(f"parameters from {layout}\n")


def test_faults_are_one_line_and_leave_nothing(checkpoint, tmp_path, capsys):
    exp = tmp_path / "exp"
    arguments = ["--checkpoint", checkpoint, "--output", exp]
    assert run(*arguments, "--format", "fairseq") == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {checkpoint}: parameter 'hubert.") and error.count("\n") == 1
    assert not exp.exists()
    weights = load_file(checkpoint / "model.safetensors")
    del weights["hubert.encoder.layer_norm.weight"]
    save_file(weights, checkpoint / "model.safetensors", metadata={"format": "pt"})
    assert run(*arguments) == 2
    error = capsys.readouterr().err
    assert error == f"error: {checkpoint}: no parameter 'encoder.layer_norm.weight'\n"
    assert not exp.exists()


def test_a_folder_that_stands_is_not_overwritten(tmp_path, capsys):
    (tmp_path / "config.json").write_text(json.dumps(TINY))
    assert run("--checkpoint", tmp_path, "--output", tmp_path) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {tmp_path}: exists, and a pre-training is not overwritten; ")
