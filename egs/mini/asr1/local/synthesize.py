"""Synthesise one set of the mini corpus into a Kaldi data directory: all of it, or nothing.

One process makes one set in a fixed order, because espeak-ng's state carries over from sentence to
sentence: the audio is the same, bit for bit, in every run with the same library. A smaller set
(`--train_utterances 40`) is the beginning of the full one.
"""

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from sentences import VOICES, WORDS, Voice, all_sentences

from espnet_lite.bin.arguments import parser
from espnet_lite.errors import InputError, reports_input_errors


@dataclass(frozen=True, slots=True)
class Facts:
    """What a full set holds; a run that makes something else stops."""

    sentences: int
    words_alone: int  # times every word of the vocabulary is spoken as an utterance of its own
    words: int
    speakers: int
    minutes: tuple[float, float]  # a range: the last digits belong to espeak-ng's version

    @property
    def utterances(self) -> int:
        """Return the number of utterances of the full set."""
        return self.sentences + self.words_alone * len(WORDS)


FACTS = {
    "train": Facts(sentences=280, words_alone=4, words=2309, speakers=24, minutes=(15, 28)),
    "dev": Facts(sentences=56, words_alone=0, words=395, speakers=4, minutes=(2, 5)),
    "test": Facts(sentences=84, words_alone=0, words=618, speakers=6, minutes=(3, 7)),
}
LEAST_IN_TRAIN = 15  # every word is spoken at least so often in the full training set

UTTERANCE_SECONDS = (0.4, 8.0)  # outside of it espeak-ng has not said the sentence
QUIETEST_RMS = 0.005  # of full scale; below it the utterance counts as silence

NOISY = 0.2  # share of the utterances with noise added
SNR_DB = (15.0, 30.0)
SILENCE_SECONDS = (0.05, 0.3)  # before and after the speech, drawn for each end
PEAK = (0.3, 0.9)  # of full scale, drawn for each utterance: the level tells nothing
SYNTHESIS_SEED = 1


@dataclass(frozen=True, slots=True)
class Line:
    """One utterance to be spoken."""

    id: str
    text: str
    voice: Voice


def plan(name: str, count: int | None = None) -> list[Line]:
    """Return the first `count` utterances of set `name` in the order of synthesis.

    Voices take turns, so that a small set has many of them. Sets take disjoint slices of one list of
    distinct sentences. Behind the sentences of train every word stands alone a few times: from such
    utterances CTC learns what aligns with what, and leaves its plateau minutes earlier.
    """
    names = list(FACTS)
    first = sum(FACTS[other].sentences for other in names[: names.index(name)])
    texts = all_sentences(first + FACTS[name].sentences)[first:]
    texts += list(WORDS) * FACTS[name].words_alone
    voices = VOICES[name]
    lines = []
    for index, text in enumerate(texts):
        voice = voices[index % len(voices)]
        lines.append(Line(f"{voice.speaker}-{index:04d}", text, voice))
    return lines[:count]


def check_plan() -> None:
    """Assert that the full sets hold what FACTS says and share neither voice nor sentence."""
    plans = {name: plan(name) for name in FACTS}
    for name, lines in plans.items():
        facts = FACTS[name]
        words = [word for line in lines for word in line.text.split()]
        assert len({line.id for line in lines}) == facts.utterances, name
        assert len(words) == facts.words, f"{name}: {len(words)} words, expected {facts.words}"
        assert len({line.voice.speaker for line in lines}) == facts.speakers, name
        assert set(words) <= set(WORDS), set(words) - set(WORDS)
        sentences = lines[: facts.sentences]
        assert all(3 <= len(line.text.split()) <= 10 for line in sentences), name
        if name == "train":
            rarest = min(WORDS, key=words.count)
            assert words.count(rarest) >= LEAST_IN_TRAIN, (rarest, words.count(rarest))
    for one, other in (("train", "dev"), ("train", "test"), ("dev", "test")):
        assert not {v.variant for v in VOICES[one]} & {v.variant for v in VOICES[other]}
        assert not {x.text for x in plans[one]} & {x.text for x in plans[other]}


def finish(samples, line: Line, sample_rate: int):
    """Return the spoken samples as int16 with silence at both ends, a level, and noise for some.

    Args:
        samples: int16 numpy array [samples] as espeak-ng gave it.
        line: its id seeds all that is drawn here.
        sample_rate: in Hz.

    Raises:
        InputError: the utterance is silent or of an unlikely length.
    """
    import zlib

    import numpy as np

    # RandomState, not Generator: numpy promises that its sequence never changes.
    random = np.random.RandomState(zlib.crc32(line.id.encode()))
    speech = samples / 32768.0
    rms = float(np.sqrt(np.mean(speech**2))) if len(speech) else 0.0
    before, after = (int(x * sample_rate) for x in random.uniform(*SILENCE_SECONDS, size=2))
    peak = random.uniform(*PEAK)
    is_noisy = random.uniform() < NOISY
    is_pink = random.uniform() < 0.5
    snr_db = random.uniform(*SNR_DB)
    total = np.concatenate([np.zeros(before), speech, np.zeros(after)])
    seconds = len(total) / sample_rate
    if rms < QUIETEST_RMS or not UTTERANCE_SECONDS[0] <= seconds <= UTTERANCE_SECONDS[1]:
        raise InputError(
            f"espeak-ng spoke '{line.text}' in voice {line.voice.espeak_name} with RMS {rms:.4f} in "
            f"{seconds:.2f} s, expected at least {QUIETEST_RMS} and {UTTERANCE_SECONDS[0]} to "
            f"{UTTERANCE_SECONDS[1]} s",
            where=line.id,
            fix="install it again: python -m pip install --force-reinstall espeakng-loader",
        )
    if is_noisy:
        noise = random.standard_normal(len(total))
        if is_pink:  # power falls as 1/f
            spectrum = np.fft.rfft(noise)
            noise = np.fft.irfft(spectrum / np.sqrt(np.arange(1, len(spectrum) + 1)), len(total))
        noise *= rms / np.sqrt(np.mean(noise**2)) * 10 ** (-snr_db / 20)
        total = total + noise
    total *= peak / np.abs(total).max()
    return np.rint(total * 32767).astype(np.int16)


def synthesize(name: str, data_dir: Path, *, count: int | None = None) -> float:
    """Write set `name` to `data_dir/name` and return its minutes of audio.

    `data_dir/audio/name` gets 16-bit FLAC at espeak-ng's own 22,050 Hz; stage 2 resamples.

    Raises:
        InputError: espeak-ng is missing or did not speak, or a folder cannot be written.
    """
    import numpy as np
    import soundfile
    from espeak import Espeak

    from espnet_lite.data.data_dir import Utterance, write_data_dir
    from espnet_lite.data.validate import validate_data_dir
    from espnet_lite.files import atomic_folder

    espeak = Espeak()
    utterances = []
    samples_in_all = 0
    with atomic_folder(data_dir / "audio" / name) as audio:
        for line in plan(name, count):
            spoken = espeak.speak(
                line.text,
                voice=line.voice.espeak_name,
                words_per_minute=line.voice.words_per_minute,
                pitch=line.voice.pitch,
                seed=SYNTHESIS_SEED,
            )
            samples = finish(np.frombuffer(spoken, np.int16), line, espeak.sample_rate)
            file = f"{line.id}.flac"
            soundfile.write(audio / file, samples, espeak.sample_rate, subtype="PCM_16")
            samples_in_all += len(samples)
            utterances.append(
                Utterance(
                    id=line.id,
                    audio=str(data_dir / "audio" / name / file),
                    start_seconds=None,
                    end_seconds=None,
                    text=line.text,
                    speaker=line.voice.speaker,
                    num_samples=None,  # counted by stage 2, at the rate it resamples to
                )
            )
        minutes = samples_in_all / espeak.sample_rate / 60
        if count is None:
            low, high = FACTS[name].minutes
            assert low <= minutes <= high, f"{name}: {minutes:.2f} minutes, not {low} to {high}"
        # Tables of an earlier run must not outlive their audio, which is about to be replaced.
        shutil.rmtree(data_dir / name, ignore_errors=True)
    write_data_dir(data_dir / name, utterances)
    validate_data_dir(data_dir / name)
    return minutes


@reports_input_errors
def main(argv: list[str] | None = None) -> int:
    """Make one set and print one line about it."""
    options = parser(__doc__.partition("\n")[0])
    options.add_argument("--set", required=True, choices=list(FACTS), help="which set to make")
    options.add_argument("--data_dir", type=Path, default=Path("data"), help="holds the sets")
    options.add_argument("--download_dir", default="downloads", help="not used: nothing is fetched")
    options.add_argument("--corpus", default="", help="refused: this corpus is made, not read")
    for name, facts in FACTS.items():
        options.add_argument(
            f"--{name}_utterances",
            type=int,
            default=facts.utterances,
            metavar="N",
            help=f"1 to {facts.utterances}: the first N of the set",
        )
    arguments = options.parse_args(argv)
    if arguments.corpus:
        raise InputError(
            f"--corpus {arguments.corpus}: the mini corpus is synthesised here, no folder is read",
            fix="leave --corpus away",
        )
    counts = {
        "train": arguments.train_utterances,
        "dev": arguments.dev_utterances,
        "test": arguments.test_utterances,
    }
    for name, count in counts.items():
        if not 1 <= count <= FACTS[name].utterances:
            raise InputError(f"--{name}_utterances {count}, expected 1 to {FACTS[name].utterances}")
    check_plan()
    name = arguments.set
    count = None if counts[name] == FACTS[name].utterances else counts[name]
    minutes = synthesize(name, arguments.data_dir, count=count)
    lines = plan(name, count)
    words = sum(len(line.text.split()) for line in lines)
    speakers = len({line.voice.speaker for line in lines})
    print(
        f"{arguments.data_dir / name}: {len(lines)} utterances, {words} words, "
        f"{speakers} speakers, {minutes:.1f} minutes"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
