"""Noise mixed into utterances while a model trains, each time another piece at another level."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from espnet_lite.data.audio import audio_info, read_audio, resampled_length, to_int16
from espnet_lite.errors import InputError

# Files with these suffixes are noise; others (README, LICENSE, ANNOTATIONS in MUSAN) are passed over.
AUDIO_SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".sph", ".aif", ".aiff")
# No recording of speech in noise is meant by more than this; such a number is a slip of the pen.
_MAX_SNR_DB = 100.0


class NoiseMixer:
    """Recordings of noise in memory, a piece of one of which is added to an utterance.

    The recordings are 16-bit integers at one rate: an hour at 16 kHz takes 115 MB, in each process
    of a data-parallel training.
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        sample_rate: int,
        probability: float | int,
        snr_db: Sequence[float | int],
        max_gigabytes: float | int = 2.0,
    ):
        """Read every recording in `folder` and its subfolders, and resample it once.

        Args:
            folder: audio files in any format that libsndfile reads; channels are averaged.
            sample_rate: of the utterances, in Hz.
            probability: of adding noise to an utterance.
            snr_db: lowest and highest ratio of speech energy to noise energy, in dB.
            max_gigabytes: refuse noise that takes more memory, in 10⁹ bytes.

        Raises:
            InputError: a senseless number, a folder that is not there or holds no audio, a file
                that cannot be read (it is named), or more noise than `max_gigabytes`.
        """
        if not 0 <= probability <= 1:
            raise InputError(f"probability of noise {probability}, expected 0 to 1")
        if len(snr_db) != 2 or not -_MAX_SNR_DB <= snr_db[0] <= snr_db[1] <= _MAX_SNR_DB:
            raise InputError(
                f"signal-to-noise ratios {list(snr_db)} dB, expected the lowest and the highest, "
                f"within {-_MAX_SNR_DB:g} to {_MAX_SNR_DB:g} dB"
            )
        self.probability = probability
        self.snr_db = (float(snr_db[0]), float(snr_db[1]))
        self._recordings = _read_recordings(Path(folder), sample_rate, max_gigabytes)
        lengths = [len(recording) for recording in self._recordings]
        self._ends = np.cumsum(lengths, dtype=np.int64)

    def add(self, samples: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Return the utterance with noise, or as it is; four draws from the generator either way.

        A recording is drawn with a chance proportional to its length, then a stretch of it as long
        as the utterance; a shorter recording is repeated. The ratio is drawn uniformly in dB and
        holds for the energies over the whole utterance. Digital silence, of speech or noise, has no
        such ratio: the utterance stays as it is. The sum may leave [-1, 1] and is not clipped,
        because the features are computed in floating point.

        Args:
            samples: float32, shape [n]; not changed.
            generator: the only source of chance.

        Returns:
            float32, shape [n].
        """
        use, choice, start, level = generator.random(4)
        if use >= self.probability:
            return samples
        index = int(np.searchsorted(self._ends[:-1], choice * self._ends[-1], side="right"))
        noise = _stretch(self._recordings[index], len(samples), start).astype(np.float32)
        speech_energy, noise_energy = _energy(samples), _energy(noise)
        if speech_energy == 0 or noise_energy == 0:
            return samples
        low, high = self.snr_db
        ratio = 10 ** ((low + level * (high - low)) / 10)
        noise *= math.sqrt(speech_energy / (noise_energy * ratio))
        noise += samples
        return noise


def _stretch(recording: np.ndarray, length: int, start: float) -> np.ndarray:
    """Return `length` samples that begin at the part `start` in [0, 1) of the possible places."""
    if len(recording) >= length:
        first = int(start * (len(recording) - length + 1))
        return recording[first : first + length]
    first = int(start * len(recording))
    return np.take(recording, np.arange(first, first + length), mode="wrap")


def _energy(samples: np.ndarray) -> float:
    return float(np.square(samples, dtype=np.float64).sum())


def _read_recordings(
    folder: Path, sample_rate: int, max_gigabytes: float | int
) -> list[np.ndarray]:
    """Return the recordings as int16 in the order of their paths, which fixes what is drawn."""
    if not folder.is_dir():
        raise InputError("no such folder of noise recordings", where=folder)
    paths = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in AUDIO_SUFFIXES and not path.name.startswith(".")
    )
    if not paths:
        raise InputError(
            f"no noise recordings, expected files that end in {' '.join(AUDIO_SUFFIXES)}",
            where=folder,
        )
    infos = [audio_info(str(path)) for path in paths]
    lengths = [resampled_length(info.frames, info.sample_rate, sample_rate) for info in infos]
    gigabytes = 2 * sum(lengths) / 1e9
    if gigabytes > max_gigabytes:
        raise InputError(
            f"{len(paths)} files of noise take {gigabytes:.2f} GB of memory at {sample_rate} Hz, "
            f"expected at most {max_gigabytes:g} GB",
            where=folder,
            fix="give a part of it, such as the folder 'noise' of MUSAN",
        )
    return [
        to_int16(read_audio(str(path), sample_rate=sample_rate, channel="mix")[0]) for path in paths
    ]
