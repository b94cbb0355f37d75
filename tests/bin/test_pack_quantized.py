"""pack_model with policies of few bits: after training, and what a training in few bits left; decoded."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import save_file

from espnet_lite.bin import decode_asr, pack_model, profile_model
from espnet_lite.config import dump_yaml, from_plain, to_plain
from espnet_lite.data.data_dir import Utterance, write_data_dir
from espnet_lite.models.asr import AsrConfig, AsrModel
from espnet_lite.quantize.calibration import start_activations
from espnet_lite.quantize.config import QuantizeConfig
from espnet_lite.quantize.policy import quantize_modules
from espnet_lite.runtime.format import read_header, read_packed
from espnet_lite.runtime.packed_model import PackedModel
from espnet_lite.text.tokenizer import Tokenizer

TOKENS = ["<blank>", "<unk>", "<space>", "a", "b", "c", "<sos/eos>"]
MODEL = {
    "front_end": {"name": "log_mel", "num_mels": 20, "channels": 4, "cmvn": "utterance"},
    "encoder": {"name": "conformer", "dim": 16, "layers": 1, "heads": 2, "feed_forward": 32},
    "decoder": {"name": "transformer", "layers": 1, "heads": 2, "feed_forward": 32},
}
KINDS = "[attention_linear, attention_matmul, feed_forward, conv_pointwise, conv_depthwise]"
W1A1 = {
    "rules": [
        {
            "kinds": KINDS.strip("[]").split(", "),
            "weight_bits": 1,
            "activation_bits": 1,
        },
        {"kinds": ["subsampling", "head"], "weight_bits": 8},
    ]
}


def write_experiment(folder: Path, model: AsrModel, plain: dict) -> Path:
    """Write what train_asr and quantize_asr leave."""
    folder.mkdir()
    save_file(model.state_dict(), folder / "model.safetensors")
    plain = {"model": to_plain(model.config), "train": {}, **plain}
    (folder / "config.yaml").write_text(dump_yaml(plain))
    record = {"updates": 12, "seed": 1, "dev": {"loss_ctc": 3.5}, "minutes": 1.0, "parameters": 5}
    (folder / "model.json").write_text(json.dumps(record))
    Tokenizer.from_dict({"kind": "char", "nlsyms": [], "tokens": TOKENS}).save(folder / "tokenizer")
    return folder


def untrained() -> AsrModel:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return AsrModel(from_plain(AsrConfig, MODEL), vocab=len(TOKENS)).eval()


@pytest.fixture(scope="module")
def expdir(tmp_path_factory) -> Path:
    return write_experiment(tmp_path_factory.mktemp("exp") / "asr_tiny", untrained(), {})


@pytest.fixture(scope="module")
def quantized_expdir(tmp_path_factory) -> Path:
    """What a training in one bit leaves."""
    model = untrained()
    quantize_modules(model, from_plain(QuantizeConfig, W1A1).rules, where="rules")
    noise = 0.1 * torch.randn(2, 16000, generator=torch.Generator().manual_seed(0))
    start_activations(model, lambda: model.encode(noise, torch.tensor([16000, 16000])))
    folder = tmp_path_factory.mktemp("exp") / "quantized_tiny"
    return write_experiment(folder, model, W1A1)


@pytest.fixture(scope="module")
def dump(tmp_path_factory) -> Path:
    folder, utterances = tmp_path_factory.mktemp("dump"), []
    for number, samples in enumerate((16000, 20000, 9000, 24000)):
        audio = 0.1 * np.random.default_rng(number).standard_normal(samples)
        soundfile.write(folder / f"{number}.wav", audio, 16000)
        path = str(folder / f"{number}.wav")
        utterances.append(Utterance(f"a-{number}", path, None, None, "ab", "a", samples))
    write_data_dir(folder / "dev", utterances)
    return folder / "dev"


def write_policy(folder: Path, name: str, text: str) -> Path:
    path = folder / f"quantize_{name}.yaml"
    path.write_text(text)
    return path


def pack(config: Path, output: Path, *more: object) -> int:
    return pack_model.main(["--config", str(config), "--output", str(output), *map(str, more)])


WEIGHTS_ONLY = f"rules: [{{kinds: {KINDS.replace('attention_matmul, ', '')}, weight_bits: 4}}]\n"
DYNAMIC = f"rules: [{{kinds: {KINDS}, weight_bits: 8, activation_bits: 8}}]\n"


def test_weights_alone_need_no_speech(expdir, tmp_path, capsys):
    config = write_policy(tmp_path, "int4", "weights: fp32\n" + WEIGHTS_ONLY)
    assert pack(config, tmp_path / "m.esp", "--expdir", expdir) == 0
    told = capsys.readouterr().out
    assert "conv_depthwise" in told and "lsq 4 by channel" in told
    assert "at most 0.00e+00 from the fake-quantized model" in told
    header, tensors = read_packed(tmp_path / "m.esp")
    assert header["policy"]["name"] == "int4" and header["policy"]["method"] == "post-training"
    assert header["policy"]["rules"][0]["weight_bits"] == 4
    assert tensors["encoder.blocks.0.convolution.depthwise.weight"].encoding == "int4"
    assert tensors["ctc_head.weight"].dtype == torch.float32
    assert header["record"]["dev"] == {"loss_ctc": 3.5}
    model = AsrModel(from_plain(AsrConfig, {**MODEL, "decoder": None}), vocab=7)
    assert header["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    given = ["--expdir", expdir, "--set", "weights=bf16"]
    assert pack(config, tmp_path / "bf16.esp", *given) == 0
    assert read_header(tmp_path / "bf16.esp")["policy"]["weights"] == "bf16"


def test_scales_of_activations_are_measured_and_quality_is_in_the_record(
    expdir, dump, tmp_path, capsys
):
    config = write_policy(tmp_path, "dynamic", DYNAMIC)
    assert pack(config, tmp_path / "m.esp", "--expdir", expdir) == 2
    assert "--train_dirs: this policy quantizes activations" in capsys.readouterr().err
    given = ["--expdir", expdir, "--train_dirs", dump, "--dev_dirs", dump]
    assert pack(config, tmp_path / "m.esp", *given) == 0
    dev = read_header(tmp_path / "m.esp")["record"]["dev"]
    assert 0.5 < dev["agreement"] <= 1 and dev["loss_ctc"] > 0
    assert f"{100 * dev['agreement']:.2f} % of the frames" in capsys.readouterr().out


def test_from_a_packed_file_with_its_decoder(expdir, dump, tmp_path):
    plain = write_policy(tmp_path, "fp32", "weights: fp32\ndecoder: true\n")
    assert pack(plain, tmp_path / "plain.esp", "--expdir", expdir) == 0
    config = write_policy(tmp_path, "dynamic", "decoder: true\n" + DYNAMIC)
    for name, given in (("a", ["--expdir", expdir]), ("b", ["--model", tmp_path / "plain.esp"])):
        assert pack(config, tmp_path / f"{name}.esp", *given, "--train_dirs", dump) == 0
    assert (tmp_path / "a.esp").read_bytes() == (tmp_path / "b.esp").read_bytes()
    assert read_header(tmp_path / "a.esp")["architecture"]["decoder"]["layers"] == 1


def test_what_a_training_in_few_bits_left(quantized_expdir, expdir, dump, tmp_path, capsys):
    text = dump_yaml(W1A1) + "training: {train: {updates: 5}}\n"
    config = write_policy(tmp_path, "w1a1", text)
    assert pack(config, tmp_path / "w1a1.esp", "--expdir", quantized_expdir) == 0
    assert "at most 0.00e+00 from the fake-quantized model" in capsys.readouterr().out
    header = read_header(tmp_path / "w1a1.esp")
    assert header["policy"]["method"] == "training" and header["format_version"] == 2
    assert pack(config, tmp_path / "m.esp", "--expdir", expdir) == 2
    assert "train with it first" in capsys.readouterr().err
    other = write_policy(tmp_path, "other", DYNAMIC)
    assert pack(other, tmp_path / "m.esp", "--expdir", quantized_expdir) == 2
    assert "are not those that" in capsys.readouterr().err
    assert pack(config, tmp_path / "m.esp", "--model", tmp_path / "w1a1.esp") == 2
    assert "is quantized already" in capsys.readouterr().err
    assert not (tmp_path / "m.esp").exists()


def test_a_file_of_one_bit_is_decoded_and_profiled(
    quantized_expdir, dump, tmp_path, monkeypatch, capsys
):
    config = write_policy(tmp_path, "w1a1", dump_yaml(W1A1))
    model = tmp_path / "w1a1.esp"
    assert pack(config, model, "--expdir", quantized_expdir) == 0

    def run_jobs(launcher, array):
        for task in array.tasks:
            assert decode_asr.main(array.command_of(task)[3:]) == 0

    threads = torch.get_num_threads()
    monkeypatch.setattr("espnet_lite.jobs.launcher.Launcher.run", run_jobs)
    greedy = tmp_path / "greedy.yaml"
    greedy.write_text("batch_seconds: 60.0\n")
    arguments = ["--model", str(model), "--data_dir", str(dump), "--config", str(greedy)]
    assert decode_asr.main([*arguments, "--output_dir", str(tmp_path / "out")]) == 0
    torch.set_num_threads(threads)
    lines = (tmp_path / "out" / "text").read_text().splitlines()
    assert [line.split(" ", 1)[0] for line in lines] == [f"a-{number}" for number in range(4)]
    packed = PackedModel.load(model)
    assert "bits=1" in repr(packed)
    output = tmp_path / "profile.json"
    assert profile_model.main(["--model", str(model), "--output", str(output), "--macs_only"]) == 0
    profile = json.loads(output.read_text())
    assert profile["model"]["bytes"] == model.stat().st_size
    macs = profile["macs"]["total"]
    assert profile["estimates"]["bops"] < macs * 32 * 32
    assert profile["estimates"]["weighted_macs"] < macs
    by_kind = profile["macs"]["by_kind"]
    few = sum(by_kind[kind] for kind in KINDS.strip("[]").split(", "))
    of_eight_bits = by_kind["subsampling"] + by_kind["head"]
    expected = few * 1 + of_eight_bits * 8 * 32 + by_kind["features"] * 32 * 32
    # The table of positions has 8 bits, whatever the policy: its Linear is 1 by 8.
    assert expected <= profile["estimates"]["bops"] <= expected + 8 * by_kind["attention_linear"]


@pytest.mark.parametrize("given", [[], ["--expdir", "a", "--model", "b"]])
def test_one_source_is_needed(tmp_path, capsys, given):
    config = write_policy(tmp_path, "x", "weights: bf16\n")
    assert pack(config, tmp_path / "m.esp", *given) == 2
    assert "--expdir, --model: expected one of them" in capsys.readouterr().err
