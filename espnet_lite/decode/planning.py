"""Which utterances are decoded together. Imports no torch: the parent process plans too."""

from collections.abc import Sequence

from espnet_lite.data.batching import plan_batches
from espnet_lite.data.data_dir import Utterance
from espnet_lite.errors import InputError


def plan_decoding(
    utterances: Sequence[Utterance], *, sample_rate: int, batch_seconds: float
) -> list[list[Utterance]]:
    """Return the batches of a set, longest utterances first; every job makes the same plan.

    Raises:
        InputError: an utterance whose length is not known.
    """
    for utterance in utterances:
        if utterance.num_samples is None:
            raise InputError(
                "no utt2num_samples beside it, expected a dump folder",
                where=f"utterance '{utterance.id}'",
                fix="make one: dump_data --data_dir DATA --dump_dir DUMP",
            )
    plan = plan_batches(
        [utterance.num_samples for utterance in utterances],
        batch_samples=round(batch_seconds * sample_rate),
    )
    return [[utterances[position] for position in batch] for batch in plan]
