"""From a plan of batches to hypotheses, one batch at a time with its time taken."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol, runtime_checkable

from espnet_lite.data.loader import Loader
from espnet_lite.data.read_ahead import read_ahead
from espnet_lite.data.utterance import Batch, Utterance
from espnet_lite.decode.config import DecodeConfig
from espnet_lite.decode.hypothesis import Hypothesis
from espnet_lite.decode.language_model import LanguageModel
from espnet_lite.decode.searches import Recognizer, build_search
from espnet_lite.decode.shards import BatchResult, Decoded, Reading
from espnet_lite.errors import InputError
from espnet_lite.nn.decoder import TransformerDecoder

READ_AHEAD_BATCHES = 2


@runtime_checkable
class Tokenizer(Protocol):
    """What decoding asks of a tokenizer."""

    tokens: list[str]

    def decode(self, ids: list[int]) -> str: ...


@runtime_checkable
class SpeechToText(Recognizer, Protocol):
    """What decoding asks of a model, beside what a search does."""

    sample_rate: int
    tokenizer: Tokenizer


def decode_batches(
    model: SpeechToText,
    batches: Mapping[int, Sequence[Utterance]],
    config: DecodeConfig,
    decoder: TransformerDecoder | None = None,
    lm: LanguageModel | None = None,
) -> Iterator[BatchResult]:
    """Yield the result of each batch (number -> utterances), in the order given.

    Prints a line with the utterances before each batch, so that a log ends with the names of those
    that were being decoded when a job died, of whatever. Audio is read by a thread, up to
    READ_AHEAD_BATCHES ahead; waiting for it counts in `wall_seconds`.

    Args:
        decoder: the attention decoder, where the config needs one.
        lm: the language model, where the config needs one.

    Raises:
        InputError: unreadable audio or log-probabilities that are not finite, with the utterance.
    """
    search = build_search(config, decoder, lm)
    read = read_ahead(
        (read_batch(utterances, model.sample_rate) for utterances in batches.values()),
        depth=READ_AHEAD_BATCHES,
    )
    for number, utterances in batches.items():
        started = time.perf_counter()
        print(f"batch {number}:", *(utterance.id for utterance in utterances), flush=True)
        batch = next(read)
        output = model.encode(batch.waveform, batch.waveform_lengths)
        found = search(output.encoded, model.ctc_log_probs(output.encoded), output.lengths)
        decoded = [
            Decoded(
                name, [_reading(hypothesis, model.tokenizer) for hypothesis in _finite(name, nbest)]
            )
            for name, nbest in zip(batch.ids, found, strict=True)
        ]
        yield BatchResult(
            batch=number,
            audio_seconds=batch.audio_seconds(model.sample_rate),
            wall_seconds=time.perf_counter() - started,
            decoded=decoded,
        )


def _finite(name: str, nbest: list[Hypothesis]) -> list[Hypothesis]:
    """Return the hypotheses of an utterance, whose scores must be numbers."""
    scores = [hypothesis.score for hypothesis in nbest]
    if not scores or not all(map(math.isfinite, scores)):
        raise InputError(
            f"log-probabilities sum to {scores[0] if scores else math.nan}, expected a finite number",
            where=f"utterance '{name}'",
            fix="the model's weights or the audio hold values that are not finite",
        )
    return nbest


def _reading(hypothesis: Hypothesis, tokenizer: Tokenizer) -> Reading:
    """Return a hypothesis in words."""
    return Reading(
        # Words parted by single spaces, whatever blanks the model put between them.
        text=" ".join(tokenizer.decode(hypothesis.tokens).split()),
        tokens=[tokenizer.tokens[token] for token in hypothesis.tokens],
        score=round(hypothesis.score, 4),
        parts={name: round(part, 4) for name, part in hypothesis.parts.items()},
    )


def read_batch(utterances: Sequence[Utterance], sample_rate: int) -> Batch:
    """Return the audio of one batch of the plan, through the loader that training uses."""
    loader = Loader(
        utterances,
        None,
        sample_rate=sample_rate,
        batch_seconds=1.0e9,  # the plan is made already: all in one batch
        max_batch_utterances=len(utterances),
        seed=0,
        shuffle=False,
        prefetch_batches=0,
        cache_gigabytes=0.0,
    )
    return next(loader.batches(0))
