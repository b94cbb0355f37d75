"""The choice of a search's weights on a dev set: utterances are encoded once, and searched for each choice."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from espnet_lite.config import from_plain, to_plain
from espnet_lite.data.utterance import Utterance
from espnet_lite.decode.batched import SpeechToText, read_batch
from espnet_lite.decode.config import METHODS, DecodeConfig
from espnet_lite.decode.language_model import LanguageModel
from espnet_lite.decode.planning import plan_decoding
from espnet_lite.decode.searches import build_search
from espnet_lite.errors import InputError
from espnet_lite.nn.decoder import TransformerDecoder
from espnet_lite.score.alignment import align
from espnet_lite.text.tokenizer import Tokenizer

Choice = dict[str, float | int]  # key of the config → value


def parse_grid(texts: Sequence[str], config: DecodeConfig) -> list[Choice]:
    """Return all combinations of `key=value,value,…`, the last key changing fastest.

    Raises:
        InputError: not of that form, or a key or a value that the config does not take.
    """
    values: dict[str, list[float | int]] = {}
    plain = to_plain(config)
    for text in texts:
        key, equals, listed = text.partition("=")
        try:
            numbers = [float(part) for part in listed.split(",")] if equals else []
        except ValueError:
            numbers = []
        if not numbers or key in values:
            raise InputError(f"'{text}', expected KEY=NUMBER,NUMBER once", where="--grid")
        if key not in plain or isinstance(plain[key], (str, bool)):
            raise InputError(
                f"'{key}' is no number of method {config.method}, expected one of: "
                + ", ".join(name for name, value in plain.items() if not isinstance(value, str)),
                where="--grid",
            )
        whole = isinstance(plain[key], int)
        values[key] = [
            int(number) if whole and number == int(number) else number for number in numbers
        ]
    grid = [
        dict(zip(values, numbers, strict=True)) for numbers in itertools.product(*values.values())
    ]
    for choice in grid:
        with_choice(config, choice)
    return grid


def with_choice(config: DecodeConfig, choice: Choice) -> DecodeConfig:
    """Return the config with other values.

    Raises:
        InputError: a value out of range.
    """
    return from_plain(METHODS[config.method], {**to_plain(config), **choice}, where="--grid")


def spread(utterances: Sequence[Utterance], count: int | None) -> list[Utterance]:
    """Return `count` utterances spread evenly over a set, so that every speaker has some; None: all."""
    total = len(utterances)
    if count is None or count >= total:
        return list(utterances)
    return [utterances[place * total // count] for place in range(count)]


@dataclass(frozen=True)
class Tried:
    """A choice with what came of it."""

    choice: Choice
    errors: int
    words: int

    @property
    def wer(self) -> float:
        """Return the word error rate in percent."""
        return 100.0 * self.errors / self.words


class Tuner:
    """A model's encoded utterances, and the error rate of any search over them."""

    def __init__(
        self,
        model: SpeechToText,
        utterances: Sequence[Utterance],
        *,
        batch_seconds: float,
        decoder: TransformerDecoder | None,
        lm: LanguageModel | None,
    ):
        """Read and encode the utterances.

        Raises:
            InputError: unreadable audio, or no words to compare with.
        """
        self.tokenizer: Tokenizer = model.tokenizer
        self.decoder, self.lm = decoder, lm
        self.texts = {utterance.id: (utterance.text or "").split() for utterance in utterances}
        if not any(self.texts.values()):
            raise InputError("no words in the texts, expected a labelled set")
        self.batches = []
        for batch in plan_decoding(
            utterances, sample_rate=model.sample_rate, batch_seconds=batch_seconds
        ):
            audio = read_batch(batch, model.sample_rate)
            output = model.encode(audio.waveform, audio.waveform_lengths)
            log_probs = model.ctc_log_probs(output.encoded)
            self.batches.append((audio.ids, output.encoded, log_probs, output.lengths))

    def try_out(self, config: DecodeConfig, choice: Choice) -> Tried:
        """Return what a search with these values makes of the utterances."""
        search = build_search(with_choice(config, choice), self.decoder, self.lm)
        errors = 0
        for ids, *encoded in self.batches:
            for name, nbest in zip(ids, search(*encoded), strict=True):
                words = self.tokenizer.decode(nbest[0].tokens).split() if nbest else []
                errors += align(self.texts[name], words).counts.errors
        return Tried(choice, errors, sum(map(len, self.texts.values())))


def edges(best: Mapping[str, float | int], grid: Sequence[Choice]) -> list[str]:
    """Return the keys whose best value is the first or the last of three or more that were tried."""
    found = []
    for key, value in best.items():
        tried = sorted({choice[key] for choice in grid})
        if len(tried) > 2 and value in (tried[0], tried[-1]) and not (value == 0 and tried[0] == 0):
            found.append(key)
    return found
