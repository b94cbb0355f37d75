"""Stage 2: a validated data directory → one mono recording at one rate for each utterance.

Lossless 16-bit mono audio of the right rate stays where it is. Everything else (other rates, MP3,
Ogg, archives, pipes, channels, segments) is decoded once and written as a 16-bit FLAC file. With the
format "ark" all audio is written, into a few large archives: a million small files are slow to copy,
to list and to open on a network file system.
"""

import collections
import contextlib
import io
import itertools
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from espnet_lite.data.ark import ArchiveWriter, archive_name
from espnet_lite.data.audio import resample, to_int16
from espnet_lite.data.data_dir import Utterance, read_data_dir
from espnet_lite.data.made_of import (
    audio_digest,
    content_digests,
    is_made_of,
    tables_of,
    write_record,
)
from espnet_lite.data.recording import Recording, open_recording, utterance_named
from espnet_lite.data.tables import write_table
from espnet_lite.data.target_folder import check_target
from espnet_lite.data.validate import validate_data_dir
from espnet_lite.errors import InputError, unknown_name
from espnet_lite.files import atomic_folder

AUDIO_FORMATS = ("flac", "ark")
# Recordings that each thread may be ahead of the one written next: bounds what waits in memory.
_AHEAD_OF_THREAD = 4
_MOST_NAME_BYTES = 255
_RECORD = ".made_of.json"  # in the dump


@dataclass
class DumpReport:
    """What the dump holds and what it left out."""

    utterances: int = 0
    speakers: int = 0
    seconds: float = 0.0
    written: int = 0
    archives: int = 0
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
    audio_format: str = "flac",
    archive_bytes: int = 10**9,
    only_if_changed: bool = False,
) -> DumpReport | None:
    """Write `target` as a data directory ready for training, whole or not at all.

    Args:
        source: a data directory; it is validated first.
        target: gets wav.scp, text, utt2spk, spk2utt, utt2num_samples, utt2dur and audio/.
        sample_rate: of the dump, in Hz.
        min_seconds, max_seconds: shorter and longer utterances are left out and counted.
        need_text: False for unlabelled data.
        channel: of recordings with several: its number from 0, or "mix"; None refuses them.
        allow_pipes: run the commands in wav.scp (never through a shell).
        threads: recordings decoded at a time; each holds one utterance in memory, and with "ark"
            the encoded audio of its recording.
        audio_format: "flac" for a file an utterance, "ark" for archives of all audio.
        archive_bytes: an archive that has as many is full.
        only_if_changed: do nothing, and return None, where the target was made of the same source
            with the same options and nobody touched it since.

    Raises:
        InputError: the source breaks a rule, audio cannot be read as its header says (the
            utterance and file are named), no utterance is left, or the target holds the source or
            something else than a data directory.
    """
    if audio_format not in AUDIO_FORMATS:
        raise unknown_name("audio format", audio_format, AUDIO_FORMATS)
    target = Path(target)
    made_of = {
        "tables": content_digests(tables_of(Path(source))),
        "audio": audio_digest(Path(source) / "wav.scp"),
        "target": os.path.abspath(target),
        "format": [sample_rate, channel, audio_format, archive_bytes],
        "rules": [min_seconds, repr(max_seconds), need_text, allow_pipes],  # JSON has no infinity
    }
    if only_if_changed and is_made_of(target / _RECORD, made_of):
        return None
    validate_data_dir(source, need_text=need_text, allow_pipes=allow_pipes)
    check_target(target, sources=[source])
    utterances = read_data_dir(source, need_text=need_text)
    report = DumpReport()
    with atomic_folder(target) as folder:
        (folder / "audio").mkdir()
        job = _Job(
            utterances=utterances,
            sample_rate=sample_rate,
            min_seconds=min_seconds,
            max_seconds=max_seconds,
            channel=channel,
            allow_pipes=allow_pipes,
            audio_folder=None if audio_format == "ark" else folder / "audio",
            report=report,
        )
        outcome = _Outcome(len(utterances))
        writer = ArchiveWriter(folder / "audio", max_bytes=archive_bytes)
        with contextlib.closing(writer):
            for dumped in _run(job, _by_recording(utterances), threads):
                outcome.add(dumped)
                if dumped.encoded is not None:
                    key = utterances[dumped.position].id
                    outcome.places[dumped.position] = writer.add(key, dumped.encoded)
        report.archives = writer.number
        if not outcome.num_samples.any():
            raise InputError(
                f"no utterance left: {len(report.too_short)} shorter than {min_seconds:g} s, "
                f"{len(report.too_long)} longer than {max_seconds:g} s",
                where=source,
                fix="change --min_seconds or --max_seconds",
            )
        audio_folder = Path(os.path.abspath(target)) / "audio"
        _write_tables(folder, job, outcome, audio_folder)
        outcome.count(report, sample_rate)
        if report.written == 0:
            (folder / "audio").rmdir()
        audio = [folder / "audio"] if report.written else []
        write_record(folder / _RECORD, made_of, [*tables_of(folder), *audio])
    return report


class _Dumped(NamedTuple):
    """An utterance of the dump.

    Attributes:
        position: in the source.
        num_samples: at the rate of the dump.
        source_hz: rate of the recording.
        was_written: False where the recording stays.
        encoded: the audio file for an archive; None where there is none to add.
    """

    position: int
    num_samples: int
    source_hz: int
    was_written: bool
    encoded: bytes | None


class _Outcome:
    """What became of every utterance, by its position: arrays, 29 bytes an utterance."""

    def __init__(self, number: int):
        self.num_samples = np.zeros(number, dtype=np.int64)  # 0: left out
        self.source_hz = np.zeros(number, dtype=np.int32)
        self.was_written = np.zeros(number, dtype=bool)
        self.places = np.zeros((number, 2), dtype=np.int64)  # archive (0: none) and offset

    def add(self, dumped: _Dumped) -> None:
        self.num_samples[dumped.position] = dumped.num_samples
        self.source_hz[dumped.position] = dumped.source_hz
        self.was_written[dumped.position] = dumped.was_written

    def count(self, report: DumpReport, sample_rate: int) -> None:
        """Fill in the numbers of the report."""
        kept = self.num_samples > 0
        report.utterances = int(kept.sum())
        report.seconds = int(self.num_samples.sum()) / sample_rate
        report.written = int(self.was_written.sum())
        rates, counts = np.unique(self.source_hz[kept], return_counts=True)
        report.resampled_from_hz.update(dict(zip(rates.tolist(), counts.tolist(), strict=True)))
        del report.resampled_from_hz[sample_rate]


@dataclass(frozen=True)
class _Job:
    """What is the same for every recording of a dump; `audio_folder` is None for archives."""

    utterances: Sequence[Utterance]
    sample_rate: int
    min_seconds: float | int
    max_seconds: float | int
    channel: int | str | None
    allow_pipes: bool
    audio_folder: Path | None
    report: DumpReport

    def dump_recording(self, positions: Sequence[int]) -> list[_Dumped]:
        """Dump the utterances of one recording, sorted by start."""
        utterances = [(position, self.utterances[position]) for position in positions]
        first = utterances[0][1]
        with contextlib.ExitStack() as stack:
            with utterance_named(first.id):
                recording = stack.enter_context(
                    open_recording(first.audio, channel=self.channel, allow_pipes=self.allow_pipes)
                )
            return list(self._dump_open(recording, utterances))

    def _dump_open(
        self, recording: Recording, utterances: Sequence[tuple[int, Utterance]]
    ) -> Iterator[_Dumped]:
        spans, chosen = [], []
        for position, utterance in utterances:
            with utterance_named(utterance.id):
                span = recording.span(utterance.start_seconds, utterance.end_seconds)
            seconds = (span[1] - span[0]) / recording.sample_rate
            if seconds < self.min_seconds:
                self.report.too_short.append(utterance.id)
            elif seconds > self.max_seconds:
                self.report.too_long.append(utterance.id)
            else:
                spans.append(span)
                chosen.append((position, utterance))
        cuts = recording.cut(spans)
        rate = recording.sample_rate
        for (position, utterance), span in zip(chosen, spans, strict=True):
            with utterance_named(utterance.id):
                # Read even where the file stays, because only that shows that it is whole.
                samples = next(cuts)
            if rate != self.sample_rate:
                samples = resample(samples, rate, self.sample_rate)
            stays = (
                self.audio_folder is not None
                and recording.is_lossless_16_bit
                and recording.channels == 1
                and rate == self.sample_rate
                and span == (0, recording.frames)
            )
            encoded = None if stays else self._encode(samples)
            if encoded is not None and self.audio_folder is not None:
                (self.audio_folder / file_name(utterance.id, ".flac")).write_bytes(encoded)
                encoded = None
            yield _Dumped(position, len(samples), rate, not stays, encoded)

    def _encode(self, samples: np.ndarray) -> bytes:
        # In memory, because libsndfile does not tell a full disk from other faults.
        file = io.BytesIO()
        soundfile.write(file, to_int16(samples), self.sample_rate, format="FLAC", subtype="PCM_16")
        return file.getvalue()


def file_name(utterance: str, suffix: str) -> str:
    """Return the name of a file of an utterance: its id with `/` and `%` escaped.

    Raises:
        InputError: an id too long for a file system.
    """
    name = utterance.replace("%", "%25").replace("/", "%2F") + suffix
    if len(name.encode("utf-8")) > _MOST_NAME_BYTES:
        raise InputError(
            f"a file name of {len(name.encode('utf-8'))} bytes, file systems take "
            f"{_MOST_NAME_BYTES}",
            where=f"utterance '{utterance}'",
            fix="dump with --audio_format ark, or give it a shorter id",
        )
    return name


def _by_recording(utterances: Sequence[Utterance]) -> Iterable[list[int]]:
    """Return the positions of the utterances of each recording, sorted by start."""
    if utterances[0].start_seconds is None:  # no segments: every recording is an utterance
        return ([position] for position in range(len(utterances)))
    recordings: dict[str, list[int]] = {}
    starts = np.zeros(len(utterances))
    for position, utterance in enumerate(utterances):
        recordings.setdefault(utterance.audio, []).append(position)
        starts[position] = utterance.start_seconds
    for group in recordings.values():
        group.sort(key=starts.__getitem__)
    return recordings.values()


def _run(job: _Job, recordings: Iterable[list[int]], threads: int) -> Iterator[_Dumped]:
    """Yield the dumped utterances, recording after recording in their order."""
    waiting = collections.deque()
    recordings = iter(recordings)
    with ThreadPoolExecutor(max_workers=threads) as pool:
        try:
            while True:
                free = threads * _AHEAD_OF_THREAD - len(waiting)
                for group in itertools.islice(recordings, free):
                    waiting.append(pool.submit(job.dump_recording, group))
                if not waiting:
                    return
                yield from waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _write_tables(folder: Path, job: _Job, outcome: _Outcome, audio_folder: Path) -> None:
    """Write a line an utterance into every table, in the source's order, which is that of bytes."""
    names = ["wav.scp", "utt2spk", "utt2num_samples", "utt2dur"]
    speakers: dict[str, list[str]] = {}
    if job.utterances[0].text is not None:
        names.append("text")
    with contextlib.ExitStack() as stack:
        files = [
            stack.enter_context((folder / name).open("w", encoding="utf-8", newline="\n"))
            for name in names
        ]
        for position, utterance in enumerate(job.utterances):
            num_samples = int(outcome.num_samples[position])
            if num_samples == 0:
                continue
            archive, offset = outcome.places[position].tolist()
            if archive:
                entry = f"{audio_folder / archive_name(archive)}:{offset}"
            elif outcome.was_written[position]:
                entry = str(audio_folder / file_name(utterance.id, ".flac"))
            else:
                entry = os.path.abspath(utterance.audio)
            seconds = f"{num_samples / job.sample_rate:.6f}"
            values = (entry, utterance.speaker, num_samples, seconds, utterance.text)
            for file, value in zip(files, values, strict=False):  # no text: no file for it
                file.write(f"{utterance.id} {value}".rstrip(" ") + "\n")
            speakers.setdefault(utterance.speaker, []).append(utterance.id)
    write_table(folder / "spk2utt", {name: " ".join(ids) for name, ids in speakers.items()})
    job.report.speakers = len(speakers)
