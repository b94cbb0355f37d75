"""The training of a Transformer language model: joins configuration, text, model and trainer."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file

from espnet_lite.data.text_loader import TextLoader
from espnet_lite.errors import InputError
from espnet_lite.files import write_text
from espnet_lite.lm.packed import read_transformer, write_transformer
from espnet_lite.lm.perplexity import Perplexity
from espnet_lite.lm.text import Line
from espnet_lite.lm.transformer import TransformerLmConfig
from espnet_lite.models.lm import LmModel
from espnet_lite.score.results import read_json
from espnet_lite.tasks.lm_text import LmText
from espnet_lite.tasks.training import TextOptions, Training, run_training
from espnet_lite.text.tokenizer import Tokenizer
from espnet_lite.train.options import TrainOptions

WEIGHTS_PREFIX = "lm."


@dataclass(frozen=True)
class TrainTransformerLmConfig:
    """Schema of conf/lm_transformer*.yaml."""

    kind: str = "transformer"
    model: TransformerLmConfig = field(default_factory=TransformerLmConfig)
    label_smoothing: float = 0.0  # in training; perplexities are without
    data: TextOptions = field(default_factory=TextOptions)
    train: TrainOptions = field(default_factory=TrainOptions)

    def __post_init__(self):
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing {self.label_smoothing} is not from 0 to below 1")


def train_transformer_lm(
    config: TrainTransformerLmConfig,
    *,
    config_file: Path,
    text: LmText,
    tokenizer: Tokenizer | None,
    expdir: Path,
    fresh: bool,
    device_name: str,
    command: list[str],
) -> int:
    """Train, or go on training, in `expdir`; write lm.esp when done. Return 0, or 75 to requeue.

    Raises:
        InputError: anything the user can mend, each with its file or key.
    """
    if tokenizer is None:
        raise InputError(
            "a language model of tokens needs their table",
            fix="name it: --tokenizer FOLDER_OR_MODEL",
        )
    if not text.dev_sets:
        raise InputError("no text to validate on", fix="name it: --dev_text FILE")
    sentences = [tokenizer.encode(line.text) for line in text.lines]
    dev = {
        name: [tokenizer.encode(line.text) for line in lines]
        for name, lines in text.dev_sets.items()
    }

    def prepare() -> Training:
        torch.manual_seed(config.train.seed)
        return Training(
            config=config,
            model=LmModel(
                config.model, vocab=tokenizer.vocab, label_smoothing=config.label_smoothing
            ),
            train_loader=TextLoader(
                sentences, batch_tokens=config.data.batch_tokens, seed=config.train.seed
            ),
            dev_loader=_dev_loader([s for of_set in dev.values() for s in of_set], config),
            inputs={
                "train": _digest(text.lines),
                "dev": _digest([line for lines in text.dev_sets.values() for line in lines]),
                "tokens": hashlib.sha256("\n".join(tokenizer.tokens).encode()).hexdigest()[:16],
            },
            save_beside=lambda folder: tokenizer.save(folder / "tokenizer"),
            facts={"text": text.record()},
            tag_option="--lm_tag",
        )

    code = run_training(
        prepare,
        expdir=expdir,
        config_file=config_file,
        fresh=fresh,
        device_name=device_name,
        command=command,
    )
    if code == 0:
        _pack(config, expdir=expdir, text=text, dev=dev, tokenizer=tokenizer)
    return code


def _pack(
    config: TrainTransformerLmConfig,
    *,
    expdir: Path,
    text: LmText,
    dev: dict[str, list[list[int]]],
    tokenizer: Tokenizer,
) -> None:
    """Write lm.esp, and the perplexities of what is in it into the record."""
    weights = {
        name.removeprefix(WEIGHTS_PREFIX): weight
        for name, weight in load_file(expdir / "model.safetensors").items()
    }
    record = read_json(expdir / "model.json")
    path = expdir / "lm.esp"
    write_transformer(path, weights, config.model, tokens=tokenizer.tokens, record=record)
    model = LmModel(config.model, vocab=tokenizer.vocab)
    model.lm, _ = read_transformer(path)
    model.eval()
    measured = {}
    for name, sentences in dev.items():
        lines = text.dev_sets[name]
        loader = _dev_loader(sentences, config)
        measured[name] = Perplexity.of(
            sum(model.log_prob(batch) for batch in loader.batches(0)),
            sentences=len(sentences),
            words=sum(len(line.text.split()) for line in lines),
            tokens=sum(map(len, sentences)),
            unknown_tokens=sum(s.count(tokenizer.unknown_id) for s in sentences),
        )
        print(f"{name}: {measured[name]}")
    record = {
        **record,
        "kind": config.kind,
        "dev": {name: perplexity.record() for name, perplexity in measured.items()},
    }
    write_transformer(path, weights, config.model, tokens=tokenizer.tokens, record=record)
    write_text(expdir / "model.json", json.dumps(record, indent=1) + "\n")


def _dev_loader(sentences: Sequence[list[int]], config: TrainTransformerLmConfig) -> TextLoader:
    return TextLoader(sentences, batch_tokens=config.data.batch_tokens, seed=0, shuffle=False)


def _digest(lines: Sequence[Line]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.text.encode() + b"\n")
    return digest.hexdigest()[:16]
