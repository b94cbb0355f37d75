"""Write what is said in recordings, with a packed model and nothing else.

Audio is files, folders (every recording in them), or `-`: 16-bit little-endian PCM of one channel on stdin.
Text goes to stdout, or with --output_dir into a file for each recording; all that is not text to stderr.
"""

import contextlib
import gc
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from espnet_lite.bin.arguments import parser
from espnet_lite.errors import InputError, reports_input_errors

SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".sph", ".aiff", ".aif", ".au", ".m4a")
FORMATS = {"plain": "txt", "json": "json", "srt": "srt"}
STDIN = "-"


@reports_input_errors
def main(argv: list[str] | None = None) -> int:
    """Return 0 with all recordings transcribed."""
    args = parser(__doc__)
    args.add_argument("model", type=Path, help="packed model (*.esp)")
    args.add_argument("audio", nargs="+", help="files, folders, or - for raw PCM on stdin")
    args.add_argument("--format", choices=tuple(FORMATS), default="plain", help="of the text")
    args.add_argument("--output_dir", type=Path, help="write NAME.txt, .json or .srt there")
    args.add_argument("--channel", help="of several: its number from 0, or mix")
    args.add_argument("--rate", type=int, help="Hz of raw PCM; default: the model's")
    args.add_argument("--threads", type=int, help="default: all cores")
    args.add_argument("--window_seconds", type=float, default=30.0, help="read at a time")
    args.add_argument("--overlap_seconds", type=float, default=4.0, help="of two windows")
    options = args.parse_args(argv)
    if options.threads is not None and options.threads < 1:
        raise InputError(f"{options.threads}, expected 1 or more", where="--threads")
    if options.rate is not None and options.rate < 1:
        raise InputError(f"{options.rate}, expected 1 or more", where="--rate")
    channel = options.channel
    if channel is not None and channel != "mix":
        if not channel.isdecimal():
            raise InputError(f"'{channel}', expected a number or mix", where="--channel")
        channel = int(channel)
    recordings = _recordings(options.audio)
    if options.output_dir is not None:
        _check_names(recordings)

    with _uncollected():
        import torch

        from espnet_lite.decode.transcriber import Transcriber

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    recognizer = Transcriber.load(
        options.model,
        window_seconds=options.window_seconds,
        overlap_seconds=options.overlap_seconds,
    )
    _transcribe_all(recognizer, recordings, channel, options)
    return 0


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Import without garbage collection, which finds nothing there and takes a tenth of a second."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.freeze()  # later ones leave out what has been imported


def _transcribe_all(recognizer, recordings: list[str], channel, options) -> None:
    from espnet_lite.profile.memory import peak_bytes

    is_watched = sys.stderr.isatty()
    seconds = taken = 0.0
    said_rates: set[int] = set()
    for number, recording in enumerate(recordings, start=1):
        if is_watched:
            print(f"\r{number}/{len(recordings)} {recording}\x1b[K", end="", file=sys.stderr)
        started = time.perf_counter()
        samples = _samples(recording, recognizer.sample_rate, channel, options.rate, said_rates)
        transcript = recognizer.transcribe(samples)
        taken += time.perf_counter() - started
        seconds += transcript.audio_seconds
        if is_watched:
            print("\r\x1b[K", end="", file=sys.stderr)
        if transcript.audio_seconds < recognizer.shortest_seconds:
            print(
                f"{recording}: {transcript.audio_seconds:.3f} s are shorter than a frame "
                f"of {recognizer.shortest_seconds:.3f} s: no words",
                file=sys.stderr,
            )
        _write(recording, transcript, options, alone=len(recordings) == 1)
    print(
        f"{len(recordings)} recordings, {seconds:.1f} s of audio in {taken:.2f} s: "
        f"RTF {taken / max(seconds, 1e-9):.4f}, {peak_bytes() / 1e6:.0f} MB at most",
        file=sys.stderr,
    )


def _recordings(given: list[str]) -> list[str]:
    """Return the recordings that the command line names, those of a folder in their order.

    Raises:
        InputError: a path that does not exist, a folder without recordings, stdin named twice.
    """
    found = []
    for name in given:
        path = Path(name)
        if name == STDIN or path.is_file():
            found.append(name)
        elif path.is_dir():
            inside = sorted(str(p) for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
            if not inside:
                raise InputError(f"no recordings ({' '.join(SUFFIXES)})", where=path)
            found += inside
        else:
            raise InputError("no such file or folder", where=path)
    if found.count(STDIN) > 1:
        raise InputError("stdin is named twice", where=STDIN)
    return found


def _name(recording: str) -> str:
    """Return what the file of a recording's text is called, without its ending."""
    return "stdin" if recording == STDIN else Path(recording).stem


def _check_names(recordings: list[str]) -> None:
    """Raise an InputError where two recordings would be written to one file."""
    named: dict[str, str] = {}
    for recording in recordings:
        other = named.setdefault(_name(recording), recording)
        if other != recording:
            raise InputError(
                f"has the name of {other}, and both would be written to one file",
                where=recording,
                fix="give them one by one with other folders for --output_dir",
            )


def _samples(recording: str, wanted: int, channel, rate: int | None, said: set[int]):
    """Return the samples of a recording at the rate `wanted`; other rates are said once each."""
    import numpy as np

    from espnet_lite.data.audio import read_audio, resample

    if recording == STDIN:
        raw = sys.stdin.buffer.read()
        if len(raw) % 2:
            raise InputError(f"{len(raw)} bytes, expected 16-bit samples", where="stdin")
        samples, rate = np.frombuffer(raw, dtype="<i2").astype(np.float32) / 32768, rate or wanted
    else:
        samples, rate = read_audio(recording, channel=channel)
    if rate == wanted or not len(samples):
        return samples
    if rate not in said:
        print(f"{recording}: {rate} Hz, resampled to the model's {wanted} Hz", file=sys.stderr)
        said.add(rate)
    return resample(samples, rate, wanted)


def _write(recording: str, transcript, options, *, alone: bool) -> None:
    """Write a transcript to its file, or to stdout: there with the recording's name before it, unless
    it is the only one."""
    from espnet_lite.files import write_text

    text = _formatted(recording, transcript, options.format)
    if options.output_dir is not None:
        write_text(options.output_dir / f"{_name(recording)}.{FORMATS[options.format]}", text)
        return
    if options.format == "plain" and not alone:
        text = f"{recording}\t{text}"
    try:
        print(text, end="", flush=True)
    except OSError as error:
        raise InputError(f"{error.strerror}, at {recording}", where="stdout") from None


def _formatted(recording: str, transcript, form: str) -> str:
    if form == "plain":
        return transcript.text + "\n"
    if form == "json":
        plain = {
            "audio": recording,
            "audio_seconds": round(transcript.audio_seconds, 3),
            "text": transcript.text,
            "segments": [
                {"start": s.start_seconds, "end": s.end_seconds, "text": s.text}
                for s in transcript.segments
            ],
        }
        return json.dumps(plain, ensure_ascii=False) + "\n"
    return "".join(
        f"{number}\n{_clock(s.start_seconds)} --> {_clock(s.end_seconds)}\n{s.text}\n\n"
        for number, s in enumerate(transcript.segments, start=1)
    )


def _clock(seconds: float) -> str:
    """Return hours:minutes:seconds,milliseconds."""
    milliseconds = round(1000 * seconds)
    minutes, rest = divmod(milliseconds, 60000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{rest // 1000:02d},{rest % 1000:03d}"


def _end(code: int) -> None:
    """End the process at once: an interpreter takes a quarter of a second to take torch down, and all
    that was written is in its files."""
    if not code:  # else what is left is what could not be written
        sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _end(main())
