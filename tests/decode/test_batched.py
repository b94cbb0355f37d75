"""Batches of audio to texts with a recognizer that is no network: what it says is known."""

import numpy as np
import pytest
import soundfile
import torch

from espnet_lite.data.utterance import Utterance
from espnet_lite.decode.batched import decode_batches
from espnet_lite.decode.config import DecodeConfig
from espnet_lite.decode.planning import plan_decoding
from espnet_lite.encoders.output import EncoderOutput
from espnet_lite.errors import InputError


class Letters:
    def __init__(self):
        self.tokens = ["<blank>", " ", "a", "b"]

    def decode(self, ids: list[int]) -> str:
        return "".join(self.tokens[i] for i in ids)


class Echo:
    """Says one token every 100 samples: the token's id is the sample's value times 10."""

    sample_rate = 8000
    tokenizer = Letters()

    def encode(self, waveform, waveform_lengths):
        ids = (waveform[:, ::100] * 10).round()
        return EncoderOutput(ids[..., None], waveform_lengths // 100, None)

    def ctc_log_probs(self, encoded):
        log_probs = torch.full((*encoded.shape[:2], 4), -5.0)
        return log_probs.scatter_(2, encoded.long(), -0.25)


@pytest.fixture
def utterances(tmp_path) -> list[Utterance]:
    """Spoken as ids, one each 100 samples; 8 kHz."""
    spoken = {"x": [1, 2, 0, 2, 1, 0, 1, 3, 1], "y": [3], "z": []}
    made = []
    for name, ids in spoken.items():
        samples = np.repeat(np.array([*ids, 0]) / 10, 100)[: 100 * len(ids) + 50]
        soundfile.write(tmp_path / f"{name}.wav", samples, 8000)
        path = str(tmp_path / f"{name}.wav")
        made.append(Utterance(name, path, None, None, None, "s", len(samples)))
    return made


@pytest.mark.parametrize("batch_seconds", [0.001, 0.03, 60.0])
def test_texts_tokens_and_scores(utterances, batch_seconds):
    plan = plan_decoding(utterances, sample_rate=8000, batch_seconds=batch_seconds)
    assert plan[0][-1].id == "x"  # the longest is in the first batch
    results = list(decode_batches(Echo(), dict(enumerate(plan)), DecodeConfig()))
    assert [result.batch for result in results] == list(range(len(plan)))
    told = {decoded.id: decoded.hyps[0] for result in results for decoded in result.decoded}
    assert told["x"].text == "aa b"  # no blank before, after, or twice between words
    assert told["x"].tokens == [" ", "a", "a", " ", " ", "b", " "]
    assert told["x"].score == -0.25 * 9
    assert (told["y"].text, told["z"].text, told["z"].tokens) == ("b", "", [])
    seconds = sum(result.audio_seconds for result in results)
    assert seconds == pytest.approx(sum(u.num_samples for u in utterances) / 8000)


def test_values_that_are_not_finite_name_the_utterance(utterances):
    class Broken(Echo):
        def ctc_log_probs(self, encoded):
            return super().ctc_log_probs(encoded) * float("nan")

    with pytest.raises(InputError, match=r"utterance 'y': log-probabilities sum to nan"):
        list(decode_batches(Broken(), {0: [utterances[1]]}, DecodeConfig()))


def test_audio_of_another_rate_names_the_utterance(utterances):
    class Fast(Echo):
        sample_rate = 16000

    with pytest.raises(InputError, match=r"utterance 'y'.*8000 Hz, expected 16000 Hz"):
        list(decode_batches(Fast(), {0: [utterances[1]]}, DecodeConfig()))


def test_a_set_without_lengths_cannot_be_planned(utterances):
    unknown = [Utterance("q", "q.wav", None, None, None, "s", None)]
    with pytest.raises(InputError, match=r"utterance 'q': no utt2num_samples.*dump_data"):
        plan_decoding(unknown, sample_rate=8000, batch_seconds=1.0)
