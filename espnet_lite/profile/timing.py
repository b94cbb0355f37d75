"""Real-time factor and memory: a model as the programs run it, one clip at a time."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor

from espnet_lite.decode.greedy import ctc_greedy_hypotheses
from espnet_lite.numerics import use_fast_matmul
from espnet_lite.profile.memory import peak_bytes
from espnet_lite.profile.network import Subject, load_network
from espnet_lite.runtime.kernels import use_kernels
from espnet_lite.runtime.pack import synthetic_waveform
from espnet_lite.runtime.packed_model import PackedModel

ENOUGH_SECONDS = 30.0  # of runs of one clip; a large model on a busy machine gets fewer runs


@dataclass(frozen=True)
class Timing:
    """One clip length on so many threads.

    Attributes:
        threads: of this process's operators.
        audio_seconds: length of the clip.
        seconds: the median run took.
        fastest_seconds: the fastest one took; far below the median, the machine was busy.
        runs: that were timed, after one that was not; fewer than asked for where they are long.
        peak_bytes: most memory of the process so far, Python and torch included.
    """

    threads: int
    audio_seconds: float
    seconds: float
    fastest_seconds: float
    runs: int
    peak_bytes: int

    @property
    def rtf(self) -> float:
        return self.seconds / self.audio_seconds


def time_subject(
    subject: Subject, *, threads: int, clip_seconds: Sequence[float], runs: int
) -> Iterator[Timing]:
    """Yield a timing for each clip length, from short to long so that each peak is its own.

    From samples in memory to the greedy hypothesis, or without a CTC head to encoded frames; in a
    process of its own, else `peak_bytes` are those of what ran before.
    """
    torch.set_num_threads(threads)
    use_fast_matmul(torch.device("cpu"))
    recognize, sample_rate = _runnable(subject)
    for seconds in sorted(clip_seconds):
        waveform = synthetic_waveform(seconds, sample_rate)
        lengths = torch.tensor([waveform.size(1)])
        recognize(waveform, lengths)  # prepares kernels and memory of this size
        taken: list[float] = []
        while len(taken) < runs and sum(taken) < ENOUGH_SECONDS:
            started = time.perf_counter()
            recognize(waveform, lengths)
            taken.append(time.perf_counter() - started)
        yield Timing(threads, seconds, median(taken), min(taken), len(taken), peak_bytes())


def _runnable(subject: Subject) -> tuple[Callable[[Tensor, Tensor], object], int]:
    """Return what turns (waveform, lengths) into a result, and its sample rate in Hz."""
    if subject.source == "packed":
        packed = use_kernels(PackedModel.load(subject.path))
        return lambda *audio: ctc_greedy_hypotheses(*packed.log_probs(*audio)), packed.sample_rate
    network = load_network(subject)

    @torch.inference_mode()
    def run(waveform: Tensor, lengths: Tensor) -> object:
        output = network(waveform, lengths)
        return output if network.ctc_head is None else ctc_greedy_hypotheses(*output)

    return run, network.front_end.sample_rate
