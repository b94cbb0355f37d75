"""Stage 2: a validated data directory → one mono audio file at one rate for each utterance.

Lossless 16-bit mono audio of the right rate stays where it is. Everything else (other rates, MP3,
Ogg, archives, pipes, channels, segments) is decoded once and written as 16-bit FLAC.
"""

import contextlib
import io
import itertools
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile

from espnet_lite.data.audio import resample, to_int16
from espnet_lite.data.data_dir import Utterance, read_data_dir
from espnet_lite.data.recording import Recording, open_recording, utterance_named
from espnet_lite.data.tables import speakers_to_utterances, write_table
from espnet_lite.data.validate import validate_data_dir
from espnet_lite.errors import InputError
from espnet_lite.files import atomic_folder

# Recordings handed to the threads at a time: bounds what waits for them, not the memory for audio.
_RECORDINGS_PER_ROUND = 256


@dataclass(frozen=True, slots=True)
class DumpedUtterance:
    """An utterance of the dump: its wav.scp entry and its samples at the dump's rate."""

    utterance: Utterance
    entry: str
    num_samples: int
    source_hz: int
    was_written: bool


@dataclass
class DumpReport:
    """What the dump holds and what it left out."""

    utterances: int = 0
    speakers: int = 0
    seconds: float = 0.0
    written: int = 0
    resampled_from_hz: Counter = field(default_factory=Counter)
    too_short: list[str] = field(default_factory=list)
    too_long: list[str] = field(default_factory=list)


def dump_data_dir(
    source: Path | str,
    target: Path | str,
    *,
    sample_rate: int = 16000,
    min_seconds: float | int = 0.1,
    max_seconds: float | int = 30.0,
    need_text: bool = True,
    channel: int | str | None = None,
    allow_pipes: bool = False,
    threads: int = 2,
) -> DumpReport:
    """Write `target` as a data directory ready for training, whole or not at all.

    Args:
        source: a data directory; it is validated first.
        target: gets wav.scp, text, utt2spk, spk2utt, utt2num_samples, utt2dur and audio/.
        sample_rate: of the dump, in Hz.
        min_seconds, max_seconds: shorter and longer utterances are left out and counted.
        need_text: False for unlabelled data.
        channel: of recordings with several: its number from 0, or "mix"; None refuses them.
        allow_pipes: run the commands in wav.scp (never through a shell).
        threads: recordings decoded at a time; each holds one utterance in memory.

    Raises:
        InputError: the source breaks a rule, audio cannot be read as its header says (the
            utterance and file are named), or no utterance is left.
    """
    validate_data_dir(source, need_text=need_text, allow_pipes=allow_pipes)
    target = Path(target)
    if target.resolve() == Path(source).resolve():
        raise InputError("the dump would replace its own source", where=target)
    recordings = _by_recording(read_data_dir(source, need_text=need_text))
    report = DumpReport()
    with atomic_folder(target) as folder:
        (folder / "audio").mkdir()
        job = _Job(
            sample_rate=sample_rate,
            min_seconds=min_seconds,
            max_seconds=max_seconds,
            channel=channel,
            allow_pipes=allow_pipes,
            audio_folder=folder / "audio",
            final_audio_folder=Path(os.path.abspath(target)) / "audio",
            report=report,
        )
        dumped = list(_run(job, recordings, threads))
        if not dumped:
            raise InputError(
                f"no utterance left: {len(report.too_short)} shorter than {min_seconds:g} s, "
                f"{len(report.too_long)} longer than {max_seconds:g} s",
                where=source,
                fix="change --min_seconds or --max_seconds",
            )
        _write_tables(folder, dumped, sample_rate, report)
        if report.written == 0:
            (folder / "audio").rmdir()
    return report


@dataclass(frozen=True)
class _Job:
    """What is the same for every recording of a dump."""

    sample_rate: int
    min_seconds: float | int
    max_seconds: float | int
    channel: int | str | None
    allow_pipes: bool
    audio_folder: Path
    final_audio_folder: Path
    report: DumpReport

    def dump_recording(self, utterances: Sequence[Utterance]) -> list[DumpedUtterance]:
        """Dump the utterances of one recording, sorted by start."""
        with contextlib.ExitStack() as stack:
            with utterance_named(utterances[0].id):
                recording = stack.enter_context(
                    open_recording(
                        utterances[0].audio, channel=self.channel, allow_pipes=self.allow_pipes
                    )
                )
            return list(self._dump_open(recording, utterances))

    def _dump_open(
        self, recording: Recording, utterances: Sequence[Utterance]
    ) -> Iterator[DumpedUtterance]:
        spans, chosen = [], []
        for utterance in utterances:
            with utterance_named(utterance.id):
                span = recording.span(utterance.start_seconds, utterance.end_seconds)
            seconds = (span[1] - span[0]) / recording.sample_rate
            if seconds < self.min_seconds:
                self.report.too_short.append(utterance.id)
            elif seconds > self.max_seconds:
                self.report.too_long.append(utterance.id)
            else:
                spans.append(span)
                chosen.append(utterance)
        cuts = recording.cut(spans)
        for utterance, span in zip(chosen, spans, strict=True):
            with utterance_named(utterance.id):
                # Read even where the file stays, because only that shows that it is whole.
                samples = next(cuts)
            if (
                recording.is_lossless_16_bit
                and recording.channels == 1
                and recording.sample_rate == self.sample_rate
                and span == (0, recording.frames)
            ):
                entry = os.path.abspath(utterance.audio)
                rate = recording.sample_rate
                yield DumpedUtterance(utterance, entry, len(samples), rate, was_written=False)
            else:
                yield self._write(utterance, samples, recording.sample_rate)

    def _write(self, utterance: Utterance, samples: np.ndarray, rate: int) -> DumpedUtterance:
        if rate != self.sample_rate:
            samples = resample(samples, rate, self.sample_rate)
        name = utterance.id.replace("%", "%25").replace("/", "%2F") + ".flac"
        # Encoded in memory, because libsndfile does not tell a full disk from other faults.
        encoded = io.BytesIO()
        soundfile.write(
            encoded, to_int16(samples), self.sample_rate, format="FLAC", subtype="PCM_16"
        )
        (self.audio_folder / name).write_bytes(encoded.getvalue())
        entry = str(self.final_audio_folder / name)
        return DumpedUtterance(utterance, entry, len(samples), rate, was_written=True)


def _by_recording(utterances: Sequence[Utterance]) -> list[list[Utterance]]:
    """Return the utterances of each recording, sorted by start."""
    recordings: dict[str, list[Utterance]] = {}
    for utterance in utterances:
        recordings.setdefault(utterance.audio, []).append(utterance)
    for group in recordings.values():
        group.sort(key=lambda utterance: utterance.start_seconds or 0.0)
    return list(recordings.values())


def _run(
    job: _Job, recordings: Sequence[Sequence[Utterance]], threads: int
) -> Iterator[DumpedUtterance]:
    """Yield the dumped utterances, recording after recording."""
    with ThreadPoolExecutor(max_workers=threads) as pool:
        for first in range(0, len(recordings), _RECORDINGS_PER_ROUND):
            group = recordings[first : first + _RECORDINGS_PER_ROUND]
            yield from itertools.chain.from_iterable(pool.map(job.dump_recording, group))


def _write_tables(
    folder: Path, dumped: Sequence[DumpedUtterance], sample_rate: int, report: DumpReport
) -> None:
    utt2spk = {row.utterance.id: row.utterance.speaker for row in dumped}
    spk2utt = speakers_to_utterances(utt2spk)
    write_table(folder / "wav.scp", {row.utterance.id: row.entry for row in dumped})
    write_table(folder / "utt2spk", utt2spk)
    write_table(folder / "spk2utt", spk2utt)
    write_table(folder / "utt2num_samples", {row.utterance.id: row.num_samples for row in dumped})
    seconds = {row.utterance.id: f"{row.num_samples / sample_rate:.6f}" for row in dumped}
    write_table(folder / "utt2dur", seconds)
    if dumped[0].utterance.text is not None:
        write_table(folder / "text", {row.utterance.id: row.utterance.text for row in dumped})
    report.utterances = len(dumped)
    report.speakers = len(spk2utt)
    report.seconds = sum(row.num_samples for row in dumped) / sample_rate
    report.written = sum(row.was_written for row in dumped)
    rates = (row.source_hz for row in dumped if row.source_hz != sample_rate)
    report.resampled_from_hz = Counter(rates)
