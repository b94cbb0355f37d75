"""Utterances → batches: audio, speed change and tokens, made by a thread ahead of the trainer."""

import math
from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch

from espnet_lite.data.audio import (
    audio_info,
    change_speed,
    read_audio,
    speed_length,
    speed_lengths,
    to_int16,
)
from espnet_lite.data.batching import (
    BatchPlan,
    batch_generator,
    draw_seed,
    epoch_generator,
    plan_batches,
)
from espnet_lite.data.read_ahead import read_ahead
from espnet_lite.data.recording import utterance_named
from espnet_lite.data.utterance import TOKEN_PADDING, UNIT_PADDING, Batch, Utterance
from espnet_lite.data.utterance_table import UtteranceTable
from espnet_lite.errors import InputError

# Purposes of random numbers; a draw for one never moves the draws for another.
_BATCHES, _SPEEDS = 0, 1  # of an epoch
_NOISE, _CROPS = 2, 3  # of a batch

_PLANS_KEPT = 2  # of the epoch that is read, and of one whose batches are counted meanwhile


@runtime_checkable
class Tokenizer(Protocol):
    """What the loader asks of a tokenizer."""

    def encode(self, text: str) -> list[int]: ...


@runtime_checkable
class Noise(Protocol):
    """What the loader asks of a mixer of noise: samples in and out are float32 of equal length."""

    def add(self, samples: np.ndarray, generator: np.random.Generator) -> np.ndarray: ...


@runtime_checkable
class Targets(Protocol):
    """What the loader asks of labels of frames: those of a part of an utterance.

    `num_samples` is the length of the whole utterance; the result is int64, one label for each
    frame that the model makes of the part.
    """

    def units_for(
        self, utterance: str, *, num_samples: int, start_samples: int, part_samples: int
    ) -> np.ndarray: ...


class Loader:
    """Batches of a list of utterances, epoch after epoch.

    The content of a batch depends only on (utterances, seed, epoch, position), so a training
    resumes at any batch, and processes that share it read every n-th batch each. Samples are kept as
    16-bit integers in memory, up to `cache_gigabytes`.
    """

    unit = "audio_seconds"  # what `amount` counts

    def __init__(
        self,
        utterances: Sequence[Utterance],
        tokenizer: Tokenizer | None,
        *,
        sample_rate: int,
        batch_seconds: float | int,
        seed: int,
        shuffle: bool = True,
        speed_factors: Sequence[float | int] = (1.0,),
        max_batch_utterances: int = 512,
        prefetch_batches: int = 4,
        short_first_epochs: int = 0,
        short_only_epochs: int = 0,
        short_only_seconds: float | int = 8.0,
        cache_gigabytes: float | int = 1.0,
        noise: Noise | None = None,
        crop_seconds: float | int | None = None,
        min_seconds: float | int = 0.0,
        targets: Targets | None = None,
    ):
        """Plan nothing yet; look up the lengths of utterances that have no `num_samples`.

        Args:
            utterances: as `read_data_dir` returns them, or a list.
            tokenizer: text → token ids; None makes batches without tokens.
            sample_rate: of the model, in Hz; audio of another rate is refused.
            batch_seconds: budget of a batch: its longest utterance × its utterances, in seconds.
            seed: of the order of batches, the speed factors and the batches' own seeds.
            shuffle: False gives the same batches in every epoch, longest first.
            speed_factors: one is drawn for each utterance in each epoch; 1.1 is a tenth faster.
            max_batch_utterances: most utterances in a batch.
            prefetch_batches: batches read ahead by the thread; 0 reads without a thread.
            short_first_epochs: the first n epochs of all utterances go from short to long (with
                shuffle), which gets CTC off its plateau of blanks.
            short_only_epochs: before them come n epochs of the utterances up to
                `short_only_seconds` alone (with shuffle), for a corpus with few short ones.
            short_only_seconds: the limit, after the speed change.
            cache_gigabytes: memory for decoded samples, in 10⁹ bytes; 0 reads files every time.
            noise: adds noise to each utterance after its speed change; None adds none.
            crop_seconds: of a longer utterance a part of this length is taken, from a place drawn
                anew in each epoch; None takes it whole.
            min_seconds: shorter utterances are in no batch.
            targets: labels of frames, for audio at its own speed; None makes batches without units.

        Raises:
            InputError: no utterances, a text missing, a senseless number, unreadable audio.
        """
        _check(utterances, tokenizer, batch_seconds=batch_seconds, speed_factors=speed_factors)
        if not (math.isfinite(short_only_seconds) and short_only_seconds > 0):
            raise InputError(f"short_only_seconds {short_only_seconds}, expected a positive number")
        self.utterances = utterances
        self.tokenizer = tokenizer
        self.sample_rate = sample_rate
        self.batch_samples = round(batch_seconds * sample_rate)
        self.seed = seed
        self.shuffle = shuffle
        self.speed_factors = np.asarray(speed_factors, dtype=np.float64)
        self.max_batch_utterances = max_batch_utterances
        self.prefetch_batches = prefetch_batches
        self.short_only_epochs = short_only_epochs if shuffle else 0
        self.short_only_samples = round(short_only_seconds * sample_rate)
        self.short_first_epochs = short_first_epochs if shuffle else 0
        self.noise = noise
        self.crop_samples = None if crop_seconds is None else round(crop_seconds * sample_rate)
        self.min_samples = round(min_seconds * sample_rate)
        self.targets = targets
        if targets is not None and list(speed_factors) != [1.0]:
            raise InputError(
                f"speed_factors {list(speed_factors)} with labels of frames, which fit audio at its"
                " own speed only",
                where="data.speed_factors",
                fix="set it to [1.0]",
            )
        if self.crop_samples is not None and self.crop_samples < self.min_samples:
            raise InputError(
                f"crop_seconds {crop_seconds:g} are less than min_seconds {min_seconds:g}, so that "
                "every utterance is too short",
                where="data.crop_seconds",
            )
        self.num_samples = self._all_num_samples()
        longest = int(self.num_samples.argmax())
        if self.num_samples[longest] < self.min_samples:
            raise InputError(
                f"no utterance of {min_seconds:g} s or more, the longest, "
                f"'{utterances[longest].id}', has {self.num_samples[longest] / sample_rate:.2f} s",
                where="data.min_seconds",
                fix="lower it",
            )
        if self.short_only_epochs:
            self._check_short_only(short_only_seconds)
        self._cache: dict[int, np.ndarray] = {}
        self._cache_bytes_left = int(cache_gigabytes * 1e9)
        self._plans: dict[int, BatchPlan] = {}  # by epoch, the one used last at the end

    def _check_short_only(self, seconds: float | int) -> None:
        """Refuse a limit that leaves an epoch without utterances, however slow they are played."""
        slowest = float(self.speed_factors.min())
        shortest = speed_length(int(self.num_samples.min()), slowest)
        if shortest > self.short_only_samples:
            raise InputError(
                f"no utterance of {seconds:g} s or less, the shortest has "
                f"{shortest / self.sample_rate:.1f} s at speed {slowest:g}",
                where="short_only_seconds",
                fix="raise it, or set short_only_epochs to 0",
            )

    def long_enough(self) -> np.ndarray:
        """Return for each utterance whether it has `min_seconds`: the others are in no batch."""
        return self.num_samples >= self.min_samples

    def amount(self, batch: Batch) -> float:
        """Return the seconds of speech in a batch, padding not counted."""
        return batch.audio_seconds(self.sample_rate)

    def size(self) -> str:
        """Return in words how much data there is, and what of it is left out."""
        used = int(self.long_enough().sum())
        short = len(self.num_samples) - used
        left_out = f", {short} more are too short (data.min_seconds)" if short else ""
        return f"{used} utterances{left_out}"

    def record(self, seen: float) -> dict[str, object]:
        """Return what a training's record says of its data; `seen`: `amount` of all batches so far."""
        num_samples = self.num_samples[self.long_enough()]
        return {
            "audio_hours": round(seen / 3600, 2),
            "train_utterances": len(num_samples),
            "train_hours": round(int(num_samples.sum()) / self.sample_rate / 3600, 3),
        }

    def check_targets(self) -> None:
        """Look up the labels of every utterance that is in a batch.

        Raises:
            InputError: an utterance without labels, or of another length than they were made of.
        """
        counts, used = self.num_samples.tolist(), self.long_enough().tolist()
        for utterance, num_samples, is_used in zip(self.utterances, counts, used, strict=True):
            if is_used:
                self.targets.units_for(
                    utterance.id, num_samples=num_samples, start_samples=0, part_samples=0
                )

    def num_batches(self, epoch: int) -> int:
        """Return the number of batches in an epoch (counted from 0)."""
        return len(self._plan(epoch))

    def batches(self, epoch: int, *, start: int = 0, step: int = 1) -> Iterator[Batch]:
        """Return the batches of an epoch (counted from 0), on the CPU.

        They are those at positions start, start + step, … of the `num_batches(epoch)`: process r
        of n begins at r and steps by n.

        Raises:
            InputError: while iterating: audio that is missing, truncated, undecodable, of another
                rate, or of another length than `num_samples`; the utterance and file are named.
        """
        plan = self._plan(epoch)
        factors = self._factors(epoch)
        batches = (
            self._make_batch(
                plan[position],
                factors,
                seed=draw_seed(self.seed, epoch, position),
                noise_generator=batch_generator(self.seed, epoch, position, _NOISE),
                crop_generator=batch_generator(self.seed, epoch, position, _CROPS),
            )
            for position in range(start, len(plan), step)
        )
        return read_ahead(batches, depth=self.prefetch_batches)

    def _plan(self, epoch: int) -> BatchPlan:
        """Return the batches as positions in `utterances`."""
        plan = self._plans.pop(epoch, None)
        if plan is None:
            generator = epoch_generator(self.seed, epoch, _BATCHES) if self.shuffle else None
            plan = plan_batches(
                self._lengths(self._factors(epoch)),
                batch_samples=self.batch_samples,
                max_batch_utterances=self.max_batch_utterances,
                generator=generator,
                short_first=0 <= epoch - self.short_only_epochs < self.short_first_epochs,
                min_samples=self.min_samples,
                max_samples=self.short_only_samples if epoch < self.short_only_epochs else None,
            )
        self._plans[epoch] = plan
        while len(self._plans) > _PLANS_KEPT:
            del self._plans[next(iter(self._plans))]
        return plan

    def _factors(self, epoch: int) -> np.ndarray:
        generator = epoch_generator(self.seed, epoch, _SPEEDS)
        choice = generator.random(len(self.utterances)) * len(self.speed_factors)
        return self.speed_factors[choice.astype(np.int64)]

    def _lengths(self, factors: np.ndarray) -> np.ndarray:
        """Return the samples of each utterance after its speed change and its crop."""
        lengths = speed_lengths(self.num_samples, factors)
        return lengths if self.crop_samples is None else np.minimum(lengths, self.crop_samples)

    def _all_num_samples(self) -> np.ndarray:
        if isinstance(self.utterances, UtteranceTable) and self.utterances.num_samples is not None:
            return self.utterances.num_samples
        return np.array([self._num_samples(u) for u in self.utterances], dtype=np.int64)

    def _num_samples(self, utterance: Utterance) -> int:
        if utterance.num_samples is not None:
            return utterance.num_samples
        if utterance.start_seconds is not None or utterance.end_seconds is not None:
            return len(self._read(utterance))
        with utterance_named(utterance.id):
            info = audio_info(utterance.audio)
        self._check_rate(utterance, info.sample_rate)
        return info.frames

    def _make_batch(
        self,
        positions: np.ndarray,
        factors: np.ndarray,
        *,
        seed: int,
        noise_generator: np.random.Generator,
        crop_generator: np.random.Generator,
    ) -> Batch:
        chosen = [self.utterances[i] for i in positions.tolist()]
        speeds = factors[positions].tolist()
        lengths, starts = self._parts(positions, factors, crop_generator)
        waveform = np.zeros((len(chosen), max(lengths)), dtype=np.float32)
        for row, position in enumerate(positions.tolist()):
            samples = self._samples(position, chosen[row]).astype(np.float32)
            samples *= 1 / 32768
            samples = change_speed(samples, speeds[row])[starts[row] : starts[row] + lengths[row]]
            if self.noise is not None:
                samples = self.noise.add(samples, noise_generator)
            waveform[row, : lengths[row]] = samples
        tokens, token_lengths = self._tokens(chosen)
        return Batch(
            ids=[utterance.id for utterance in chosen],
            waveform=torch.from_numpy(waveform),
            waveform_lengths=torch.tensor(lengths, dtype=torch.int64),
            tokens=tokens,
            token_lengths=token_lengths,
            seed=seed,
            units=self._units(positions, chosen, starts=starts, lengths=lengths),
        )

    def _parts(
        self, positions: np.ndarray, factors: np.ndarray, generator: np.random.Generator
    ) -> tuple[list[int], list[int]]:
        """Return samples and first sample of the part of each utterance that is taken."""
        whole = speed_lengths(self.num_samples[positions], factors[positions])
        if self.crop_samples is None:
            return whole.tolist(), [0] * len(positions)
        taken = np.minimum(whole, self.crop_samples)
        starts = generator.random(len(positions)) * (whole - taken + 1)
        return taken.tolist(), starts.astype(np.int64).tolist()

    def _units(
        self,
        positions: np.ndarray,
        chosen: list[Utterance],
        *,
        starts: list[int],
        lengths: list[int],
    ) -> torch.Tensor | None:
        if self.targets is None:
            return None
        whole = self.num_samples[positions].tolist()
        rows = [
            self.targets.units_for(
                chosen[i].id, num_samples=whole[i], start_samples=starts[i], part_samples=lengths[i]
            )
            for i in range(len(chosen))
        ]
        units = np.full((len(rows), max(map(len, rows))), UNIT_PADDING, dtype=np.int64)
        for padded, row in zip(units, rows, strict=True):
            padded[: len(row)] = row
        return torch.from_numpy(units)

    def _tokens(self, chosen: list[Utterance]) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        if self.tokenizer is None:
            return None, None
        rows = [self.tokenizer.encode(utterance.text or "") for utterance in chosen]
        lengths = torch.tensor([len(row) for row in rows], dtype=torch.int64)
        tokens = torch.full((len(rows), max(map(len, rows))), TOKEN_PADDING, dtype=torch.int64)
        for padded, row in zip(tokens, rows, strict=True):
            padded[: len(row)] = torch.tensor(row, dtype=torch.int64)
        return tokens, lengths

    def _samples(self, position: int, utterance: Utterance) -> np.ndarray:
        """Return the 16-bit samples of an utterance, from memory where they fit."""
        cached = self._cache.get(position)
        if cached is not None:
            return cached
        samples = self._read(utterance)
        if len(samples) != self.num_samples[position]:
            raise InputError(
                f"{len(samples)} samples in the audio, {self.num_samples[position]} in "
                "utt2num_samples",
                where=f"utterance '{utterance.id}' ({utterance.audio})",
                fix="the audio changed since the dump stage: run that stage again",
            )
        if samples.nbytes <= self._cache_bytes_left:
            self._cache_bytes_left -= samples.nbytes
            self._cache[position] = samples
        return samples

    def _read(self, utterance: Utterance) -> np.ndarray:
        with utterance_named(utterance.id):
            samples, rate = read_audio(
                utterance.audio,
                start_seconds=utterance.start_seconds,
                end_seconds=utterance.end_seconds,
            )
        self._check_rate(utterance, rate)
        return to_int16(samples)

    def _check_rate(self, utterance: Utterance, rate: int) -> None:
        if rate != self.sample_rate:
            raise InputError(
                f"sample rate {rate} Hz, expected {self.sample_rate} Hz",
                where=f"utterance '{utterance.id}' ({utterance.audio})",
                fix="run the dump stage, which resamples",
            )


def _check(
    utterances: Sequence[Utterance],
    tokenizer: Tokenizer | None,
    *,
    batch_seconds: float | int,
    speed_factors: Sequence[float | int],
) -> None:
    if not utterances:
        raise InputError("no utterances to load")
    if not (math.isfinite(batch_seconds) and batch_seconds > 0):
        raise InputError(f"batch_seconds {batch_seconds}, expected a positive number of seconds")
    if not speed_factors or not all(0.1 <= factor <= 10 for factor in speed_factors):
        raise InputError(f"speed_factors {list(speed_factors)}, expected factors near 1.0")
    has_text = isinstance(utterances, UtteranceTable) and utterances.has_text
    if tokenizer is not None and not has_text:
        for utterance in utterances:
            if utterance.text is None:
                raise InputError("no text, expected one", where=f"utterance '{utterance.id}'")
