"""analyze_quantization and write_quantization_errors as a user calls them, for every encoder."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from espnet_lite.bin import analyze_quantization, write_quantization_errors
from espnet_lite.config import from_plain, to_plain
from espnet_lite.data.data_dir import Utterance, write_data_dir
from espnet_lite.models.asr import AsrConfig, AsrModel
from espnet_lite.quantize.calibration import start_activations
from espnet_lite.quantize.export import export_model
from espnet_lite.quantize.policy import Rule, quantize_modules
from espnet_lite.runtime.format import read_packed, write_packed
from espnet_lite.tasks.quantization_analysis import CLAIMED, OTHER, verdict

TOKENS = ["<blank>", "<unk>", "<space>", "a", "b", "<sos/eos>"]
ENCODERS = {
    "transformer": {},
    "sparseformer": {"window_seconds": 0.2},
    "conformer": {"kernel": 5},
    "squeezeformer": {"kernel": 5, "reduce_after": 1, "recover_after": 2},
}


def write_models(folder: Path, encoder: str, **sizes) -> tuple[Path, Path]:
    """Write an untrained recognizer in fp32 and in one bit."""
    torch.manual_seed(0)
    sizes = {"name": encoder, "dim": 16, "layers": 3, "heads": 2, "feed_forward": 32, **sizes}
    plain = {"front_end": {"name": "log_mel", "num_mels": 20, "channels": 4}}
    plain["encoder"] = {**sizes, **ENCODERS[encoder]}
    config = from_plain(AsrConfig, plain)
    model = AsrModel(config, vocab=len(TOKENS)).eval()
    parts = to_plain(config)
    header = {
        "architecture": {
            "front_end": parts["front_end"],
            "encoder": parts["encoder"],
            "decoder": None,
            "vocab": len(TOKENS),
        },
        "sample_rate": 16000,
        "policy": {"name": "w1a1"},
        "tokenizer": {"kind": "char", "nlsyms": [], "tokens": TOKENS},
        "record": {},
    }
    write_packed(folder / "fp32.esp", dict(model.state_dict()), header)
    kinds = ["attention_linear", "attention_matmul", "feed_forward"]
    if encoder in ("conformer", "squeezeformer"):
        kinds += ["conv_pointwise", "conv_depthwise"]
    rule = Rule(tuple(kinds), weight_bits=1, activation_bits=1)
    quantize_modules(model, [rule], where="rules")
    noise = 0.1 * torch.randn(2, 16000, generator=torch.Generator().manual_seed(0))
    start_activations(model, lambda: model.encode(noise, torch.tensor([16000, 16000])))
    exported = export_model(model)
    header["quantized"] = exported.quantized
    write_packed(folder / "w1a1.esp", exported.tensors, header)
    return folder / "fp32.esp", folder / "w1a1.esp"


@pytest.fixture(scope="module")
def dev(tmp_path_factory) -> Path:
    folder, utterances = tmp_path_factory.mktemp("dump"), []
    # One of them is too short for a frame.
    for number, samples in enumerate((12000, 16000, 9000, 500)):
        audio = 0.1 * np.random.default_rng(number).standard_normal(samples)
        path, speaker = folder / f"{number}.wav", "ab"[number % 2]
        soundfile.write(path, audio, 16000)
        name = f"{speaker}-{number}"
        utterances.append(Utterance(name, str(path), None, None, "ab ba", speaker, samples))
    write_data_dir(folder / "dev", sorted(utterances, key=lambda utterance: utterance.id))
    return folder / "dev"


def analyse(reference: Path, quantized: Path, dev: Path, output: Path, rule: str = "own") -> int:
    arguments = ["--reference", reference, "--quantized", quantized, "--rule", rule]
    arguments += ["--data_dir", dev, "--output", output]
    return analyze_quantization.main([*map(str, arguments)])


@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_encoder(encoder, dev, tmp_path, capsys):
    reference, quantized = write_models(tmp_path, encoder)
    assert analyse(reference, quantized, dev, tmp_path / "a.json") == 0
    analysis = json.loads((tmp_path / "a.json").read_text())
    assert analysis["encoder"] == encoder and analysis["policy"] == "w1a1"
    assert analysis["utterances"] == 3 and analysis["speakers"] == 2
    kinds = {unit["kind"] for unit in analysis["units"]}
    has_convolution = encoder in ("conformer", "squeezeformer")
    assert kinds == {"attention", "feed_forward"} | ({"convolution"} if has_convolution else set())
    first = analysis["units"][0]
    assert first["own"] > 0
    # Up to the first unit nothing is quantized.
    assert first["propagated"] == 0 and first["interaction"] < 1e-6
    assert analysis["units"][-1]["propagated"] > 0
    assert len(analysis["layers_sqnr_db"]) == 4
    assert analysis["layers_sqnr_db"][0] > 200 > analysis["layers_sqnr_db"][-1]
    ablation = analysis["ablation"]
    assert ablation["reference"]["disagreement"]["value"] == 0
    # All that differs is in the units, so all kinds together are the quantized network; but of a
    # Squeezeformer its change of the frame rate too.
    together = "+".join(
        kind for kind in ("attention", "feed_forward", "convolution") if kind in kinds
    )
    assert (ablation[together] == ablation["quantized"]) == (encoder != "squeezeformer")
    pair = analysis["synergy"]["attention+feed_forward"]["loss_ctc"]["value"]
    values = {name: ablation[name]["loss_ctc"]["value"] for name in ablation}
    expected = values["attention+feed_forward"] - values["attention"]
    expected += values["reference"] - values["feed_forward"]
    assert pair == pytest.approx(expected, abs=1e-4)
    assert (analysis["verdict"] == "no convolution") != has_convolution
    assert analysis["verdict"] in capsys.readouterr().out
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_the_page(dev, tmp_path, capsys):
    analyses = []
    for encoder in ("transformer", "conformer"):
        folder = tmp_path / encoder
        folder.mkdir()
        assert analyse(*write_models(folder, encoder), dev, folder / f"{encoder}.json") == 0
        analyses.append(str(folder / f"{encoder}.json"))
    page, figure = tmp_path / "page.md", tmp_path / "images" / "errors.png"
    page.write_text("# Title\n<!-- analyses -->\nold\n<!-- /analyses -->\nend\n")
    arguments = ["--analyses", *analyses, "--page", str(page), "--figure", str(figure)]
    assert write_quantization_errors.main(arguments) == 0
    first = page.read_text(), figure.read_bytes()
    assert write_quantization_errors.main(arguments) == 0
    assert (page.read_text(), figure.read_bytes()) == first
    text = first[0]
    assert text.startswith("# Title\n<!-- analyses -->\n") and text.endswith("end\n")
    assert "old" not in text and "(images/errors.png)" in text
    assert (
        "### transformer" in text
        and "(attention + convolution) − (attention + feed-forward)" in text
    )
    assert "the recognizer's own weights in floating point" in text
    page.write_text("# no marks\n")
    assert write_quantization_errors.main(arguments) == 2
    assert "page.md: no <!-- analyses -->" in capsys.readouterr().err


def test_networks_of_other_architectures(dev, tmp_path, capsys):
    for encoder in ("transformer", "conformer"):
        (tmp_path / encoder).mkdir()
        write_models(tmp_path / encoder, encoder)
    reference, quantized = tmp_path / "transformer/fp32.esp", tmp_path / "conformer/w1a1.esp"
    assert analyse(reference, quantized, dev, tmp_path / "a.json") == 2
    err = capsys.readouterr().err
    assert "another network than the reference" in err and "encoder.name 'conformer', not" in err
    assert not (tmp_path / "a.json").exists()


@pytest.fixture
def pair(tmp_path) -> tuple[Path, Path]:
    return write_models(tmp_path, "transformer")


def changed_header(path: Path, **changes) -> Path:
    """Write the packed model again, `changes` merged into its header."""
    header, tensors = read_packed(path)
    other = path.with_name(f"changed_{path.name}")
    write_packed(other, tensors, {**header, **changes})
    return other


def test_another_width_or_another_table_of_tokens_is_another_network(pair, dev, tmp_path, capsys):
    reference, quantized = pair
    (tmp_path / "narrow").mkdir()
    narrow, _ = write_models(tmp_path / "narrow", "transformer", dim=8)
    tokens = [*TOKENS[:3], "b", "a", TOKENS[-1]]
    swapped = changed_header(reference, tokenizer={"kind": "char", "nlsyms": [], "tokens": tokens})
    for other, message in (
        (narrow, "encoder.dim 16, not 8"),
        (swapped, "token 3 'a', not 'b'"),
    ):
        assert analyse(other, quantized, dev, tmp_path / "a.json") == 2
        err = capsys.readouterr().err
        assert f"w1a1.esp: is another network than the reference {other}" in err
        assert message in err and len(err.splitlines()) == 1
    assert not (tmp_path / "a.json").exists()


@pytest.mark.parametrize(
    ("method", "rule", "message"),
    [
        ("training", "own", "own, but .* was quantized by training; give --rule teacher"),
        ("post-training", "teacher", "was quantized by post-training; give --rule own"),
        ("training", "teacher", None),
    ],
)
def test_the_rule_is_that_of_the_packed_file(method, rule, message, pair, dev, tmp_path, capsys):
    quantized = changed_header(pair[1], policy={"name": "w1a1", "method": method})
    code = analyse(pair[0], quantized, dev, tmp_path / "a.json", rule)
    err = capsys.readouterr().err
    assert code == (0 if message is None else 2)
    assert message is None or re.search(f"error: --rule: .*{message}", err)
    assert (tmp_path / "a.json").exists() == (message is None)


def test_a_quantized_reference_is_refused(pair, dev, tmp_path, capsys):
    assert analyse(pair[1], pair[1], dev, tmp_path / "a.json") == 2
    err = capsys.readouterr().err
    assert "w1a1.esp: is quantized, expected the reference in floating" in err


def interval(low: float, high: float) -> dict:
    return {"loss_ctc": {"value": (low + high) / 2, "low": low, "high": high}}


@pytest.mark.parametrize(
    ("claimed", "difference", "expected"),
    [
        ((0.1, 0.4), (0.05, 0.2), "supported"),
        ((0.1, 0.4), (-0.05, 0.2), "undecided"),
        ((-0.1, 0.4), (0.05, 0.2), "undecided"),
        ((-0.4, -0.1), (0.05, 0.2), "not supported"),
        ((0.1, 0.4), (-0.2, -0.1), "not supported"),
    ],
)
def test_the_verdict(claimed, difference, expected):
    synergy = {CLAIMED: interval(*claimed), f"{CLAIMED} - {OTHER}": interval(*difference)}
    assert verdict(synergy) == expected
    assert verdict({OTHER: interval(0.0, 1.0)}) == "no convolution"
