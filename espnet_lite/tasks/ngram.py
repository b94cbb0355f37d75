"""The making of an n-gram: joins configuration, text, tokenizer and estimator."""

import json
import time
from dataclasses import dataclass
from pathlib import Path

from espnet_lite import environment
from espnet_lite.config import check_numbers, dump_yaml, to_plain
from espnet_lite.data.target_folder import check_target
from espnet_lite.errors import InputError
from espnet_lite.files import atomic_folder
from espnet_lite.lm.arpa import write_arpa
from espnet_lite.lm.kneser_ney import MAX_ORDER, Estimate, estimate
from espnet_lite.lm.ngram import SPECIAL_WORDS
from espnet_lite.lm.packed import write_ngram
from espnet_lite.lm.perplexity import Perplexity, ngram_perplexity
from espnet_lite.lm.text import Line
from espnet_lite.tasks.lm_text import LmText
from espnet_lite.text.tokenizer import Tokenizer

UNITS = ("token", "word")


@dataclass(frozen=True)
class NgramConfig:
    """Schema of conf/lm_ngram*.yaml."""

    kind: str = "ngram"
    unit: str = (
        "token"  # token: of the recognizer, for ctc_beam and joint_beam | word: for lexicon_beam
    )
    order: int = 6  # tokens or words of the longest n-gram
    prune: tuple[int, ...] = (
        0,
    )  # of each order, counts up to which n-grams are left out; last: rest
    arpa: bool = True  # write lm.arpa.gz too, for other programs

    def __post_init__(self):
        if self.unit not in UNITS:
            raise ValueError(f"unit '{self.unit}' is not one of {', '.join(UNITS)}")
        check_numbers(self, "order", at_least=1, at_most=MAX_ORDER)
        check_numbers(self, "prune", at_least=0)


def train_ngram(
    config: NgramConfig,
    *,
    config_file: Path,
    text: LmText,
    tokenizer: Tokenizer | None,
    expdir: Path,
    command: str,
) -> int:
    """Write lm.esp, lm.arpa.gz, model.json and config.yaml to `expdir`, whole, and return 0.

    An n-gram that is there is replaced: it takes seconds, and the same text gives the same again.

    Raises:
        InputError: no tokenizer for an n-gram of tokens, or a folder with something else in it.
    """
    check_target(expdir, marks=["lm.esp"])
    started = time.perf_counter()
    words = _vocabulary(config, text.lines, tokenizer)
    sentences = _numbers(config, text.lines, words, tokenizer)
    made = estimate(sentences, words, order=config.order, prune=config.prune)
    dev = {
        name: _perplexity(config, lines, made, tokenizer) for name, lines in text.dev_sets.items()
    }
    tokens = sum(map(len, sentences))
    unknown = sum(sentence.count(0) for sentence in sentences)
    record = {
        "config": config_file.name,
        "command": command,
        "kind": config.kind,
        "unit": config.unit,
        "order": config.order,
        "ngrams": made.model.counts(),
        "discounts": [[round(amount, 4) for amount in amounts] for amounts in made.discounts],
        "fallback_discounts": made.fallbacks,
        "text": {**text.record(), "tokens": tokens, "unknown": unknown},
        "dev": {name: perplexity.record() for name, perplexity in dev.items()},
        "seconds": round(time.perf_counter() - started, 1),
        "date": time.strftime("%Y-%m-%d"),
        **environment.describe(),
    }
    with atomic_folder(expdir) as folder:
        write_ngram(folder / "lm.esp", made.model, unit=config.unit, record=record)
        if config.arpa:
            write_arpa(folder / "lm.arpa.gz", made.model)
        (folder / "model.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        (folder / "config.yaml").write_text(dump_yaml(to_plain(config)), encoding="utf-8")
    counts = " + ".join(f"{count:,}" for count in made.model.counts())
    print(f"{expdir}: {config.order}-gram of {config.unit}s, {counts} n-grams; {text}")
    for name, perplexity in dev.items():
        print(f"{name}: {perplexity}")
    return 0


def _vocabulary(config: NgramConfig, lines: list[Line], tokenizer: Tokenizer | None) -> list[str]:
    if config.unit == "word":
        found = {word for line in lines for word in line.text.split()}
        return [*SPECIAL_WORDS, *sorted(found - set(SPECIAL_WORDS))]
    if tokenizer is None:
        raise InputError(
            "an n-gram of tokens needs their table", fix="name it: --tokenizer FOLDER_OR_MODEL"
        )
    tokens = tokenizer.tokens[2:-1]
    for token in SPECIAL_WORDS:
        if token in tokens:
            raise InputError(f"token '{token}' means something else in a language model")
    return [*SPECIAL_WORDS, *tokens]


def _numbers(
    config: NgramConfig, lines: list[Line], words: list[str], tokenizer: Tokenizer | None
) -> list[list[int]]:
    """Return each sentence as numbers of words."""
    if config.unit == "word":
        ids = {word: number for number, word in enumerate(words)}
        return [[ids.get(word, 0) for word in line.text.split()] for line in lines]
    # Tokens 2, 3, … are words 3, 4, …; token 1 is <unk>, word 0.
    unknown = tokenizer.unknown_id
    return [
        [0 if token == unknown else token + 1 for token in tokenizer.encode(line.text)]
        for line in lines
    ]


def _perplexity(
    config: NgramConfig, lines: list[Line], made: Estimate, tokenizer: Tokenizer | None
) -> Perplexity:
    return ngram_perplexity(
        made.model,
        _numbers(config, lines, made.model.words, tokenizer),
        words=sum(len(line.text.split()) for line in lines),
    )
