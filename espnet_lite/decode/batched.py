"""From a plan of batches to hypotheses, one batch at a time with its time taken."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor

from espnet_lite.data.loader import Loader
from espnet_lite.data.read_ahead import read_ahead
from espnet_lite.data.utterance import Batch, Utterance
from espnet_lite.decode.config import DecodeConfig
from espnet_lite.decode.greedy import ctc_greedy_hypotheses
from espnet_lite.decode.shards import BatchResult, Decoded
from espnet_lite.errors import InputError

SEARCHES = {"ctc_greedy": ctc_greedy_hypotheses}
READ_AHEAD_BATCHES = 2


@runtime_checkable
class Tokenizer(Protocol):
    """What decoding asks of a tokenizer."""

    tokens: list[str]

    def decode(self, ids: list[int]) -> str: ...


@runtime_checkable
class Recognizer(Protocol):
    """What decoding asks of a model."""

    sample_rate: int
    tokenizer: Tokenizer

    def log_probs(self, waveform: Tensor, waveform_lengths: Tensor) -> tuple[Tensor, Tensor]: ...


def decode_batches(
    model: Recognizer, batches: Mapping[int, Sequence[Utterance]], config: DecodeConfig
) -> Iterator[BatchResult]:
    """Yield the result of each batch (number -> utterances), in the order given.

    Prints a line with the utterances before each batch, so that a log ends with the names of those
    that were being decoded when a job died, of whatever. Audio is read by a thread, up to
    READ_AHEAD_BATCHES ahead; waiting for it counts in `wall_seconds`.

    Raises:
        InputError: unreadable audio or log-probabilities that are not finite, with the utterance.
    """
    read = read_ahead(
        (_read(utterances, model.sample_rate) for utterances in batches.values()),
        depth=READ_AHEAD_BATCHES,
    )
    for number, utterances in batches.items():
        started = time.perf_counter()
        print(f"batch {number}:", *(utterance.id for utterance in utterances), flush=True)
        batch = next(read)
        log_probs, lengths = model.log_probs(batch.waveform, batch.waveform_lengths)
        hypotheses = SEARCHES[config.method](log_probs, lengths)
        decoded = []
        for name, hypothesis in zip(batch.ids, hypotheses, strict=True):
            if not abs(hypothesis.score) < float("inf"):  # NaN compares as False
                raise InputError(
                    f"log-probabilities sum to {hypothesis.score}, expected a finite number",
                    where=f"utterance '{name}'",
                    fix="the model's weights or the audio hold values that are not finite",
                )
            decoded.append(
                Decoded(
                    id=name,
                    # Words parted by single spaces, whatever blanks the model put between them.
                    text=" ".join(model.tokenizer.decode(hypothesis.tokens).split()),
                    tokens=[model.tokenizer.tokens[token] for token in hypothesis.tokens],
                    score=round(hypothesis.score, 4),
                )
            )
        yield BatchResult(
            batch=number,
            audio_seconds=batch.audio_seconds(model.sample_rate),
            wall_seconds=time.perf_counter() - started,
            decoded=decoded,
        )


def _read(utterances: Sequence[Utterance], sample_rate: int) -> Batch:
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
