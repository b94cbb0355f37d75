"""A pre-trained encoder is brought to few bits, then a recognizer is fine-tuned on it."""

import json
import shutil

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
    weights = {**model.state_dict(), "mask_embedding": torch.full((16,), 7.0)}
    file = tmp_path / "encoder.safetensors"
    write_encoder(file, weights, to_plain(config), keep_heads=True)
    return file


@pytest.fixture
def given(corpus, tmp_path) -> list[str]:
    """Return the arguments that both programs take, but for what they begin with and where they write."""
    (tmp_path / "quantize.yaml").write_text(CONFIG)
    dirs = ["--train_dirs", str(corpus / "dump/train"), "--dev_dirs", str(corpus / "dump/dev")]
    return ["--config", str(tmp_path / "quantize.yaml"), *dirs, "--device", "cpu"]


def fine_tuning(corpus, expdir) -> list[str]:
    """Return further arguments of a fine-tuning that moves nothing."""
    return [
        *("--expdir", str(expdir), "--set", "training.steps=[]"),
        *("--asr_config", str(corpus / "conf.yaml"), "--tokenizer", str(corpus / "tokens")),
        *("--asr_set", "train.updates=2", "--asr_set", "train.optimizer.lr=1e-9"),
        *("--asr_set", "train.optimizer.weight_decay=0"),
    ]


def test_an_encoder_learns_its_own_layers_and_a_recognizer_goes_on_from_it(
    corpus, pretrained, given, tmp_path, capsys
):
    encoder, expdir = tmp_path / "encoder_w1a4", tmp_path / "asr_w1a4"
    options = ["--pretrained", str(pretrained), "--expdir", str(encoder)]
    assert quantize_encoder.main([*given, *options]) == 0
    record = json.loads((encoder / "model.json").read_text())
    assert record["teacher"] == "encoder_w1a4_step_1" and record["dev"]["hidden_error"] > 0
    learned = load_file(encoder / "model.safetensors")
    name = "encoder.blocks.0.feed_forward.contract.input_quantizer.scale_start"
    assert learned[name] > 0 and not any(key.startswith("ctc_head") for key in learned)

    options = ["--pretrained", str(encoder), *fine_tuning(corpus, expdir)]
    options += ["--asr_set", "model.input_mask={time_probability: 0.1}"]
    assert quantize_asr.main([*given, *options]) == 0
    model = load_recognizer(expdir)
    mask = learned.pop("mask_embedding")
    assert (mask == 7).all() and torch.allclose(model.input_mask.embedding, mask, atol=1e-6)
    for key, tensor in learned.items():  # at such a rate they stay where they were
        torch.testing.assert_close(model.state_dict()[key], tensor, rtol=0, atol=1e-6)
    assert "agreement" not in json.loads((expdir / "model.json").read_text())["dev"]

    other = ["--set", "rules=[{kinds: [feed_forward], weight_bits: 8}]", "--expdir", "elsewhere"]
    assert quantize_asr.main([*given, *options, *other]) == 2
    assert "are not those that" in capsys.readouterr().err


def test_the_mask_embedding_of_a_pretraining_in_floating_point_is_kept(
    corpus, pretrained, given, tmp_path
):
    options = ["--pretrained", str(pretrained), *fine_tuning(corpus, tmp_path / "asr")]
    options += ["--asr_set", "model.input_mask={time_probability: 0.1}"]
    assert quantize_asr.main([*given, *options]) == 0
    embedding = load_file(tmp_path / "asr/model.safetensors")["input_mask.embedding"]
    assert torch.allclose(embedding, torch.tensor(7.0), atol=1e-6)


def test_another_tokenizer_is_refused_on_going_on(corpus, pretrained, given, tmp_path, capsys):
    options = ["--pretrained", str(pretrained), *fine_tuning(corpus, tmp_path / "asr")]
    assert quantize_asr.main([*given, *options]) == 0
    before = (tmp_path / "asr/tokenizer/tokens.txt").read_bytes()
    options += ["--tokenizer", str(tmp_path / "tokens"), "--asr_set", "train.updates=3"]
    shutil.copytree(corpus / "tokens", tmp_path / "tokens")
    tokens = tmp_path / "tokens/tokens.txt"
    tokens.write_text(tokens.read_text().replace("a\nb\n", "b\na\n"))
    assert tokens.read_bytes() != before
    assert quantize_asr.main([*given, *options]) == 2
    assert "another configuration: tokens '" in capsys.readouterr().err
    assert (tmp_path / "asr/tokenizer/tokens.txt").read_bytes() == before


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.precisions=[{weight_bits: 8}]", "has 1 training.precisions, but an encoder is"),
        ("training.distillation=null", "'training.distillation=null' changes nothing: an encoder"),
        ("training.train.criterion=ctc_error", "changes nothing: an encoder learns from hidden"),
        ("training.train.updates=3", "training.train.updates 3 beside training.steps"),
        ("rules=[{kinds: [attention_matmul], weight_bits: 1}]", "quantizes nothing of attention"),
    ],
)
def test_what_an_encoder_would_not_heed_is_refused(
    override, message, pretrained, given, tmp_path, capsys
):
    options = ["--pretrained", str(pretrained), "--expdir", str(tmp_path / "x"), "--set", override]
    assert quantize_encoder.main([*given, *options]) == 2
    err = capsys.readouterr().err
    assert message in err and len(err.splitlines()) == 1
    assert not (tmp_path / "x_step_1").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.steps=[{updates: 3}]", "has 1 training.steps, but on a pre-trained encoder"),
        ("training.precisions=[{weight_bits: 8}]", "has 1 training.precisions, but on a pre-"),
        ("training.distillation.hidden=2", "changes nothing: with --pretrained the training is"),
        ("training.batch_seconds=9", "'training.batch_seconds=9' changes nothing"),
        ("training.train.updates=3", "'training.train.updates=3' changes nothing"),
    ],
)
def test_what_a_fine_tuning_would_not_heed_is_refused(
    override, message, corpus, pretrained, given, tmp_path, capsys
):
    options = ["--pretrained", str(pretrained), *fine_tuning(corpus, tmp_path / "asr")]
    assert quantize_asr.main([*given, *options, "--set", override]) == 2
    err = capsys.readouterr().err
    assert message in err and len(err.splitlines()) == 1
    assert not (tmp_path / "asr").exists()


def test_a_longer_first_step_of_an_encoder_is_refused_once_the_second_has_begun(
    pretrained, given, tmp_path, capsys
):
    options = ["--pretrained", str(pretrained), "--expdir", str(tmp_path / "x")]
    assert quantize_encoder.main([*given, *options]) == 0
    longer = "training.steps=[{activation_bits: 8, updates: 3}, {updates: 2}]"
    assert quantize_encoder.main([*given, *options, "--set", longer]) == 2
    assert "x goes on from it: train.updates 2 -> 3" in capsys.readouterr().err


@pytest.mark.parametrize("options", [[], ["--teacher", "a", "--pretrained", "b"]])
def test_one_thing_to_begin_with_is_asked_for(options, capsys):
    needed = ["--config", "x", "--train_dirs", "x", "--dev_dirs", "x", "--expdir", "x"]
    with pytest.raises(SystemExit) as ended:
        quantize_asr.main([*needed, *options])
    assert ended.value.code == 2
    assert "either --teacher or --pretrained" in capsys.readouterr().err
