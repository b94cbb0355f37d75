"""What can be profiled, and what is no model, in one line."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from espnet_lite.bin import profile_model
from espnet_lite.config import dump_yaml, from_plain, parse_yaml, to_plain
from espnet_lite.decode.families import TransformerDecoderConfig
from espnet_lite.errors import InputError
from espnet_lite.models.asr import AsrConfig, AsrModel
from espnet_lite.models.hubert import HubertConfig, HubertModel
from espnet_lite.models.pretrained import write_encoder
from espnet_lite.profile import record
from espnet_lite.profile.network import load_network, read_subject
from espnet_lite.runtime import format as packed_format

ENCODER = "{name: transformer, dim: 16, layers: 1, heads: 2, feed_forward: 32}"
FRONT_END = "{name: log_mel, num_mels: 20, channels: 4}"
MODEL = f"model: {{front_end: {FRONT_END}, encoder: {ENCODER}}}\n"


@pytest.fixture(autouse=True)
def every_test_puts_back(global_state_is_put_back):
    """Use the fixture of all tests in each of this file."""


def experiment(folder, model):
    folder.mkdir()
    save_file(model.state_dict(), folder / "model.safetensors")
    (folder / "config.yaml").write_text(dump_yaml({"model": to_plain(model.config)}))
    return folder


def small(schema, **changes):
    return from_plain(schema, {**parse_yaml(MODEL)["model"], **changes})


def test_a_recognizers_experiment_runs_with_its_weights_and_without_its_decoder(tmp_path):
    decoder = TransformerDecoderConfig(layers=1, heads=2, feed_forward=8)
    config = small(AsrConfig, decoder={"name": "transformer", **to_plain(decoder)})
    model = AsrModel(config, vocab=7).eval()
    subject = read_subject(experiment(tmp_path / "exp", model))
    assert (subject.source, subject.vocab, subject.encoder) == ("experiment", 7, config.encoder)
    network = load_network(subject)
    audio = torch.randn(1, 8000), torch.tensor([8000])
    with torch.no_grad():
        log_probs, lengths = network(*audio)
        output = model.encode(*audio)
        assert torch.equal(log_probs, model.ctc_log_probs(output.encoded))
    assert torch.equal(lengths, output.lengths)
    assert not any(name.startswith("decoder") for name, _ in network.named_modules())


def test_a_pre_training_and_its_packed_encoder_have_no_head(tmp_path):
    model = HubertModel(small(HubertConfig), clusters=5).eval()
    exp = experiment(tmp_path / "exp", model)
    write_encoder(tmp_path / "e.safetensors", model.state_dict(), to_plain(model.config))
    for path, source in ((exp, "experiment"), (tmp_path / "e.safetensors", "encoder")):
        subject = read_subject(path)
        assert (subject.source, subject.vocab) == (source, None)
        network = load_network(subject)
        assert network.ctc_head is None
        weight = network.encoder.blocks[0].attention.query.weight
        expected = model.encoder.blocks[0].attention.query.weight
        if source == "encoder":
            expected = expected.bfloat16().float()
        assert torch.equal(weight, expected)


def test_a_configuration_of_either_training(tmp_path):
    path = tmp_path / "train.yaml"
    path.write_text(MODEL + "train: {updates: 3}\n")
    subject = read_subject(path, vocab=9, overrides=["model.encoder.dim=32"])
    assert (subject.source, subject.vocab, subject.encoder.dim) == ("config", 9, 32)
    path.write_text("model: {front_end: {name: waveform}, head: {name: cosine}}\n")
    assert read_subject(path).front_end.sample_rate == 16000


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("none.esp", None, "none.esp: no such packed model"),
        ("none.yaml", None, "none.yaml: no such file"),
        ("none", None, "none: no such file or folder; give a packed model (*.esp), the folder"),
        ("note.txt", "hello", "note.txt: neither a model nor a configuration; give a packed"),
        ("a.esp", "hello, this is no model", "a.esp: not a packed model (another beginning)"),
        ("a.safetensors", "hello, no weights", "a.safetensors: not a safetensors file"),
        ("a.yaml", "weights: bf16", "a.yaml: unknown key 'weights', expected a training config"),
        ("a.yaml", "train: {}", "a.yaml: no mapping 'model', expected a training config"),
        ("a.yaml", "model: bf16", "a.yaml: no mapping 'model'"),
        ("a.yaml", "model: {encoder: {dim: x}}", "a.yaml: encoder.dim: expected int, found str"),
        ("a.yaml", "model: {encodr: {}}", "unknown key 'encodr' (did you mean 'encoder'?)"),
        ("a.yaml", "model: {encoder: {name: lstm}}", "encoder.name: unknown 'lstm'"),
        ("a.yaml", "model: {head: {dimm: 3}}", "unknown key 'head.dimm' (did you mean 'dim'?)"),
    ],
)
def test_what_is_no_model_is_one_line_and_exit_code_2(tmp_path, capsys, name, content, expected):
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    output = tmp_path / "out.json"
    assert profile_model.main(["--model", str(path), "--output", str(output)]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1 and expected in err
    assert not output.exists()


def test_a_model_of_a_newer_version_is_one_line(tmp_path, capsys, monkeypatch):
    path = tmp_path / "new.esp"
    with monkeypatch.context() as patch:
        patch.setattr(packed_format, "_PLAIN_VERSION", 99)
        packed_format.write_packed(path, {"w": torch.zeros(2)}, {})
    assert profile_model.main(["--model", str(path), "--output", str(tmp_path / "o")]) == 2
    err = capsys.readouterr().err
    assert "new.esp: format_version 99, this espnet_lite reads up to 2" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--vocab", "5"], "--vocab and --set are for a training configuration (*.yaml)"),
        (["--set", "model.encoder.dim=8"], "--vocab and --set are for a training configuration"),
        (["--runs", "0"], "--runs: 0, expected a number above 0"),
        (["--threads", "1", "-2"], "--threads: -2, expected a number above 0"),
        (["--seconds", "nan"], "--seconds: nan, expected a number above 0"),
    ],
)
def test_arguments_that_do_not_fit(tmp_path, capsys, arguments, expected):
    given = ["--model", str(tmp_path), "--output", str(tmp_path / "o"), *arguments]
    assert profile_model.main(given) == 2
    assert expected in capsys.readouterr().err


def test_an_experiment_whose_weights_are_of_another_model(tmp_path, capsys):
    model = HubertModel(small(HubertConfig), clusters=5)
    exp = experiment(tmp_path / "exp", model)
    text = (exp / "config.yaml").read_text()
    (exp / "config.yaml").write_text(text.replace("feed_forward: 32", "feed_forward: 64"))
    with pytest.raises(InputError, match=r"feed_forward.expand.weight' has the shape \[32, 16\]"):
        load_network(read_subject(exp))
    (exp / "model.safetensors").unlink()
    assert profile_model.main(["--model", str(exp), "--output", str(tmp_path / "o")]) == 2
    assert "no such file; train it to its end" in capsys.readouterr().err


def test_a_packed_model_is_what_is_in_the_file_less_its_decoder(monkeypatch):
    monkeypatch.setattr(record, "SUPERB_SAMPLES", (16000,))
    path = Path(__file__).parents[1] / "golden" / "packed_v1_bf16.esp"
    header, tensors = packed_format.read_packed(path)
    decoder = [tensor for name, tensor in tensors.items() if name.startswith("decoder.")]
    subject = read_subject(path)
    found = record.build_profile("golden", subject)
    decoder_numbers = sum(tensor.numel() for tensor in decoder)
    trained = sum(tensor.numel() for name, tensor in tensors.items() if ".cmvn." not in name)
    assert found["parameters"]["total"] == trained - decoder_numbers
    stored = found["model"]
    assert stored["decoder_parameters"] == decoder_numbers
    assert stored["bytes"] + stored["decoder_bytes"] == path.stat().st_size
    assert stored["decoder_bytes"] == sum(t.numel() * t.element_size() for t in decoder)
    assert (
        decoder
        and subject.vocab == header["architecture"]["vocab"]
        and found["weights"] == "trained"
    )


def test_a_window_in_seconds_needs_frames_of_its_length(tmp_path, capsys):
    path = tmp_path / "x.yaml"
    path.write_text("model: {encoder: {name: sparseformer}, front_end: {subsampling: 2}}")
    assert profile_model.main(["--model", str(path), "--output", str(tmp_path / "o")]) == 2
    assert (
        "encoder.frame_ms: 40, but the front end makes a frame each 20" in capsys.readouterr().err
    )


def test_the_program_writes_all_of_a_configuration(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(record, "SUPERB_SAMPLES", (16000, 24000))
    path, output = tmp_path / "train_tiny.yaml", tmp_path / "p" / "tiny.json"
    path.write_text(MODEL)
    arguments = ["--model", str(path), "--output", str(output), "--vocab", "7"]
    arguments += ["--seconds", "1.5", "0.5", "--threads", "1", "--runs", "2"]
    assert profile_model.main(arguments) == 0
    profile = json.loads(output.read_text())
    assert (profile["name"], profile["source"], profile["weights"]) == ("tiny", "config", "random")
    assert profile["model"]["bytes_of"] == "bf16 weights" and profile["model"]["sha256"] is None
    macs = profile["macs"]
    assert macs["total"] == sum(macs["by_kind"].values())
    assert macs["total"] == sum(utterance["macs"] for utterance in macs["utterances"])
    assert macs["audio_seconds"] == 2.5 and macs["per_second"] == round(macs["total"] / 2.5)
    assert [utterance["samples"] for utterance in macs["utterances"]] == [16000, 24000]
    assert [timing["audio_seconds"] for timing in profile["timings"]] == [0.5, 1.5]
    for timing in profile["timings"]:
        assert timing["runs"] == 2 and timing["threads"] == 1 and timing["peak_bytes"] > 1e7
        assert 0 < timing["fastest_seconds"] <= timing["seconds"]
    assert profile["environment"]["torch"] == torch.__version__
    out = capsys.readouterr().out
    assert out.startswith("tiny: config, random weights; ") and str(output) in out
