#!/usr/bin/env python
"""Log mel features: ours against a plain rfft + mel matmul in torch, and against libraries.

    python tools/benchmarks/fbank.py [--threads 2] [--runs 9] [--num_mels 80]
    python tools/benchmarks/fbank.py --audio_dir DIR        real speech, 16 kHz FLAC or WAV files

Prints one table: audio seconds a second (times real time), the same with the peer "plain torch"
as 1, the largest difference from ours, and the part of the values that differ by more than 1e-3.
Every run takes the candidates one after the other, so that a disturbance meets all of them;
medians. kaldi-native-fbank and torchaudio take part where they import.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from espnet_lite.bin.arguments import parser
from espnet_lite.errors import InputError, reports_input_errors

SAMPLE_RATE = 16000
WINDOW, SHIFT, FFT = 400, 160, 512


def synthetic_batch(utterances: int, seconds: float, seed: int = 0):
    """Return a padded batch of vowels with noise, 0.8 to 1 times `seconds` long, and its lengths."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    time_axis = torch.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    pitch_hz = torch.empty(utterances, 1).uniform_(90, 220, generator=generator)
    waveform = 0.01 * torch.randn(utterances, time_axis.numel(), generator=generator)
    for harmonic in range(1, 20):
        waveform += 0.2 / harmonic * torch.sin(2 * torch.pi * harmonic * pitch_hz * time_axis)
    share = torch.empty(utterances).uniform_(0.8, 1.0, generator=generator)
    lengths = (share * time_axis.numel()).long()
    for row, length in zip(waveform, lengths.tolist(), strict=True):
        row[length:] = 0
    return waveform, lengths


def audio_batch(folder: Path, utterances: int):
    """Return a padded batch of the first audio files of a folder, and its lengths."""
    import torch

    from espnet_lite.data.audio import read_audio

    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".flac", ".wav"))
    if not paths:
        raise InputError("no .flac or .wav file", where=folder)
    samples = [
        torch.from_numpy(read_audio(str(path), sample_rate=SAMPLE_RATE)[0])
        for path in paths[:utterances]
    ]
    padded = torch.nn.utils.rnn.pad_sequence(samples, batch_first=True)
    return padded, torch.tensor([len(s) for s in samples])


def plain_torch(num_mels: int) -> Callable:
    """Return the peer: Kaldi's definition as one writes it down, a whole batch per step."""
    import torch

    from espnet_lite.features.mel import mel_matrix

    povey = torch.hann_window(WINDOW, periodic=False).pow(0.85)
    filters = mel_matrix(
        SAMPLE_RATE, num_mels=num_mels, fft_samples=FFT, low_hz=20.0, high_hz=SAMPLE_RATE / 2
    )
    floor = torch.finfo(torch.float32).eps

    def features(waveform, lengths):
        frames = (waveform * 32768.0).unfold(-1, WINDOW, SHIFT)
        frames = frames - frames.mean(dim=-1, keepdim=True)
        previous = torch.nn.functional.pad(frames, (1, 0), mode="replicate")[..., :-1]
        windowed = (frames - 0.97 * previous) * povey
        spectrum = torch.fft.rfft(windowed, n=FFT)
        power = spectrum.real.square() + spectrum.imag.square()
        return (power @ filters).clamp_min(floor).log()

    return features


def ours(num_mels: int) -> Callable:
    """Return our features."""
    from espnet_lite.features.fbank import Fbank

    fbank = Fbank(SAMPLE_RATE, num_mels=num_mels)
    return lambda waveform, lengths: fbank(waveform, lengths)[0]


def kaldi_native(num_mels: int) -> Callable:
    """Return kaldi-native-fbank, utterance by utterance, frame by frame from Python."""
    import kaldi_native_fbank
    import numpy as np
    import torch

    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.dither = 0.0
    options.mel_opts.num_bins = num_mels

    def features(waveform, lengths):
        rows = []
        for samples, length in zip(waveform, lengths.tolist(), strict=True):
            fbank = kaldi_native_fbank.OnlineFbank(options)
            fbank.accept_waveform(SAMPLE_RATE, (samples[:length] * 32768.0).tolist())
            fbank.input_finished()
            frames = [fbank.get_frame(i) for i in range(fbank.num_frames_ready)]
            rows.append(torch.from_numpy(np.stack(frames)))
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)

    return features


def torchaudio_kaldi(num_mels: int) -> Callable:
    """Return torchaudio.compliance.kaldi.fbank, utterance by utterance."""
    import torch
    from torchaudio.compliance import kaldi

    def features(waveform, lengths):
        rows = [
            kaldi.fbank(
                samples[None, :length] * 32768.0,
                num_mel_bins=num_mels,
                sample_frequency=SAMPLE_RATE,
            )
            for samples, length in zip(waveform, lengths.tolist(), strict=True)
        ]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)

    return features


CANDIDATES = {
    "plain torch": plain_torch,
    "ours": ours,
    "kaldi-native-fbank": kaldi_native,
    "torchaudio kaldi.fbank": torchaudio_kaldi,
}


def importable(num_mels: int) -> dict[str, Callable]:
    """Return the candidates that can run here."""
    ready = {}
    for name, make in CANDIDATES.items():
        try:
            ready[name] = make(num_mels)
        except (ImportError, OSError) as error:
            print(f"{name}: does not import here ({type(error).__name__})")
    return ready


def differences(expected, features, lengths) -> tuple[float, float]:
    """Return the largest difference on valid frames, and the part of values over 1e-3."""
    from espnet_lite.features.fbank import num_frames
    from espnet_lite.nn.masks import valid_mask

    frames = min(expected.size(1), features.size(1))
    valid = valid_mask(num_frames(lengths, WINDOW, SHIFT), frames)
    difference = (expected[:, :frames] - features[:, :frames]).abs()[valid]
    return difference.max().item(), (difference > 1e-3).float().mean().item()


def cpu_name() -> str:
    """Return the processor's name as Linux gives it."""
    import platform

    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


@reports_input_errors
def main(argv: list[str] | None = None) -> int:
    """Print the table."""
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--runs", type=int, default=9, help="runs of each; the median counts")
    arguments.add_argument("--utterances", type=int, default=60)
    arguments.add_argument("--seconds", type=float, default=10.0, help="longest synthetic one")
    arguments.add_argument("--num_mels", type=int, default=80)
    arguments.add_argument("--audio_dir", type=Path, help="real speech instead of synthetic")
    args = arguments.parse_args(argv)

    import statistics

    import torch

    torch.set_num_threads(args.threads)
    if args.audio_dir is not None:
        waveform, lengths = audio_batch(args.audio_dir, args.utterances)
    else:
        waveform, lengths = synthetic_batch(args.utterances, args.seconds)
    audio_seconds = lengths.sum().item() / SAMPLE_RATE
    candidates = importable(args.num_mels)
    results = {name: features(waveform, lengths) for name, features in candidates.items()}
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(args.runs):
        for name, features in candidates.items():
            start = time.perf_counter()
            features(waveform, lengths)
            seconds[name].append(time.perf_counter() - start)

    print(
        f"{len(lengths)} utterances, {audio_seconds:.0f} s of audio ({waveform.size(0)} x "
        f"{waveform.size(1) / SAMPLE_RATE:.1f} s padded), {args.num_mels} mels, "
        f"median of {args.runs}; {cpu_name()}, {args.threads} threads, torch {torch.__version__}"
    )
    print("| fbank | x real time | ratio | max diff from ours | over 1e-3 |")
    print("| --- | ---: | ---: | ---: | ---: |")
    median = {name: statistics.median(times) for name, times in seconds.items()}
    for name in candidates:
        largest, part = differences(results["ours"], results[name], lengths)
        ratio = median["plain torch"] / median[name]
        speed = audio_seconds / median[name]
        print(f"| {name} | {speed:,.0f} | {ratio:.2f} | {largest:.1e} | {part:.1e} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
