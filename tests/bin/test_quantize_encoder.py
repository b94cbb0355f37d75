"""A pre-trained encoder is brought to few bits, then a recognizer is fine-tuned on it."""

import json

import pytest
import torch
from safetensors.torch import load_file

from espnet_lite.bin import quantize_asr, quantize_encoder
from espnet_lite.config import from_plain, read_yaml, to_plain
from espnet_lite.features.cmvn import load_cmvn
from espnet_lite.models.asr import AsrModel
from espnet_lite.models.pretrained import write_encoder
from espnet_lite.tasks.asr import TrainAsrConfig
from espnet_lite.tasks.quantize import load_recognizer

CONFIG = """\
rules:
  - {kinds: [attention_linear, feed_forward], weight_bits: 1, activation_bits: 4}
calibration_utterances: 4
training:
  steps: [{activation_bits: 8, updates: 2}, {updates: 2}]
  batch_seconds: 1.2
  train: {log_every: 1, validate_every: 2, save_every: 2, average_best: 1}
"""


@pytest.fixture
def pretrained(corpus, tmp_path):
    """Return an encoder as a pre-training leaves it, of the architecture of conf.yaml."""
    config = from_plain(TrainAsrConfig, read_yaml(corpus / "conf.yaml")).model
    torch.manual_seed(3)
    model = AsrModel(config, vocab=5)
    model.front_end.cmvn.set_statistics(load_cmvn(corpus / "cmvn.safetensors")[0])
    write_encoder(tmp_path / "encoder.safetensors", model.state_dict(), to_plain(config))
    return tmp_path / "encoder.safetensors"


def test_an_encoder_learns_its_own_layers_and_a_recognizer_goes_on_from_it(
    corpus, pretrained, tmp_path, capsys
):
    (tmp_path / "quantize.yaml").write_text(CONFIG)
    dirs = ["--train_dirs", str(corpus / "dump/train"), "--dev_dirs", str(corpus / "dump/dev")]
    given = ["--config", str(tmp_path / "quantize.yaml"), *dirs, "--device", "cpu"]
    encoder, expdir = tmp_path / "encoder_w1a4", tmp_path / "asr_w1a4"
    options = ["--pretrained", str(pretrained), "--expdir", str(encoder)]
    assert quantize_encoder.main([*given, *options]) == 0
    record = json.loads((encoder / "model.json").read_text())
    assert record["teacher"] == "encoder_w1a4_step_1" and record["dev"]["hidden_error"] > 0
    learned = load_file(encoder / "model.safetensors")
    name = "encoder.blocks.0.feed_forward.contract.input_quantizer.scale_start"
    assert learned[name] > 0 and not any(key.startswith("ctc_head") for key in learned)

    options = [
        *("--pretrained", str(encoder), "--expdir", str(expdir)),
        *("--asr_config", str(corpus / "conf.yaml"), "--tokenizer", str(corpus / "tokens")),
        *("--asr_set", "train.updates=2", "--asr_set", "train.optimizer.lr=1e-9"),
        *("--asr_set", "train.optimizer.weight_decay=0"),
    ]
    assert quantize_asr.main([*given, *options]) == 0
    model = load_recognizer(expdir)
    for key, tensor in learned.items():  # at such a rate they stay where they were
        torch.testing.assert_close(model.state_dict()[key], tensor, rtol=0, atol=1e-6)
    assert "agreement" not in json.loads((expdir / "model.json").read_text())["dev"]

    other = ["--set", "rules=[{kinds: [feed_forward], weight_bits: 8}]", "--expdir", "elsewhere"]
    assert quantize_asr.main([*given, *options, *other]) == 2
    assert "are not those that" in capsys.readouterr().err


@pytest.mark.parametrize("options", [[], ["--teacher", "a", "--pretrained", "b"]])
def test_one_thing_to_begin_with_is_asked_for(options, capsys):
    needed = ["--config", "x", "--train_dirs", "x", "--dev_dirs", "x", "--expdir", "x"]
    with pytest.raises(SystemExit) as ended:
        quantize_asr.main([*needed, *options])
    assert ended.value.code == 2
    assert "either --teacher or --pretrained" in capsys.readouterr().err
