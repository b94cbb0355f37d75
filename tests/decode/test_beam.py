"""Joint beam search: scorers against plain forward passes and enumeration, n-best against ESPnet."""

import itertools
import json
import math
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from espnet_lite.decode.beam import BeamLimits, beam_search
from espnet_lite.decode.config import JointBeamConfig
from espnet_lite.decode.ctc_prefix import CtcPrefixScorer
from espnet_lite.decode.decoder_scorer import StepDecoder
from espnet_lite.decode.joint import JointSearch
from espnet_lite.models.espnet_keys import decoder_from_espnet
from espnet_lite.nn.decoder import TransformerDecoder

GOLDEN = Path(__file__).parents[1] / "golden" / "espnet_beam.safetensors"


def make_decoder(vocab: int, seed: int = 0, layers: int = 2) -> TransformerDecoder:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        decoder = TransformerDecoder(
            vocab=vocab, dim=16, heads=2, feed_forward=24, layers=layers
        ).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return decoder


def random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def pick(*shape: int, below: int, generator: torch.Generator) -> torch.Tensor:
    return torch.randint(0, below, shape, generator=generator)


@torch.inference_mode()
def test_decoder_steps_equal_the_whole_forward_pass():
    """While beams reorder, hypotheses die out, utterances leave and the pool is made anew."""
    vocab, beam, eos = 9, 4, 8
    decoder = make_decoder(vocab)
    encoded, lengths = random(3, 7, 16, seed=1), torch.tensor([7, 2, 5])
    scorer = StepDecoder(decoder).start(encoded, lengths, beam=beam, sos=eos)
    tokens = torch.full((3, beam, 1), eos)
    generator = torch.Generator().manual_seed(2)
    for step in range(45):
        rows = tokens.flatten(0, 1)
        expected = decoder(
            rows,
            torch.full((len(rows),), step + 1),
            encoded.repeat_interleave(beam, dim=0),
            lengths.repeat_interleave(beam),
        )[:, -1].log_softmax(dim=-1)
        torch.testing.assert_close(scorer.score().flatten(0, 1), expected, rtol=0, atol=1e-5)
        parents = pick(len(tokens), beam, below=beam, generator=generator)
        new = pick(len(tokens), beam, below=vocab, generator=generator)
        scorer.advance(parents, new)
        tokens = torch.cat(
            [tokens.gather(1, parents[..., None].expand_as(tokens)), new[..., None]], dim=2
        )
        if step == 20:
            kept = torch.tensor([0, 2])
            scorer.keep(kept)
            tokens, encoded, lengths = tokens[kept], encoded[kept], lengths[kept]


def path_sums(log_probs: torch.Tensor) -> dict[tuple[int, ...], float]:
    """Return the probability of each reading: the sum over its paths."""
    time, vocab = log_probs.shape
    probs = log_probs.double().exp().tolist()
    sums: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(vocab), repeat=time):
        reading = tuple(token for token, _ in itertools.groupby(path) if token != 0)
        sums[reading] = sums.get(reading, 0.0) + math.prod(
            probs[t][token] for t, token in enumerate(path)
        )
    return sums


@pytest.mark.parametrize("all_tokens", [True, False])
@torch.inference_mode()
def test_ctc_prefix_scores_equal_enumerated_paths(all_tokens):
    """ψ(g) sums the paths of all readings that begin with g, and <sos/eos> those of g itself."""
    vocab, eos, beam = 4, 3, 3
    log_probs = (2 * random(2, 5, vocab, seed=3)).log_softmax(dim=-1)
    lengths = torch.tensor([5, 3])
    sums = [path_sums(log_probs[row, :length]) for row, length in enumerate(lengths)]
    scorer = CtcPrefixScorer(log_probs, lengths, beam=beam, eos=eos)
    prefixes = [[()] * beam for _ in lengths]
    generator = torch.Generator().manual_seed(4)
    for _ in range(3):
        candidates = None if all_tokens else torch.tensor([1, 2, 0, eos]).expand(2, beam, 4)
        columns = range(vocab) if all_tokens else [1, 2, 0, eos]
        scores = scorer.score(candidates)
        assert scores.dtype == torch.float32
        for row, slot in itertools.product(range(2), range(beam)):
            prefix = prefixes[row][slot]

            def total(beginning, row=row):
                size = len(beginning)
                return sum(p for reading, p in sums[row].items() if reading[:size] == beginning)

            if total(prefix) < 1e-200:
                continue  # more tokens than frames: nothing is asked of what follows
            for column, token in enumerate(columns):
                found = scores[row, slot, column].item()
                if token == 0:
                    assert found == -math.inf
                    continue
                exact = sums[row].get(prefix, 0.0) if token == eos else total((*prefix, token))
                if exact > 0:
                    expected = math.log(exact) - math.log(total(prefix))
                    assert found == pytest.approx(expected, abs=1e-5)
                else:
                    assert found == -math.inf
        parents = pick(2, beam, below=beam, generator=generator)
        tokens = 1 + pick(2, beam, below=2, generator=generator)
        scorer.advance(parents, tokens)
        prefixes = [
            [(*prefixes[row][parents[row, k]], int(tokens[row, k])) for k in range(beam)]
            for row in range(2)
        ]


@pytest.mark.parametrize("ctc_weight, penalty", [(0.4, 0.0), (0.4, 0.9), (0.0, -0.5), (1.0, 0.3)])
@torch.inference_mode()
def test_a_beam_that_holds_everything_finds_all_readings_in_order(ctc_weight, penalty):
    """Against every sequence of up to as many tokens as frames, each scored by whole passes."""
    vocab, eos = 5, 4
    decoder = make_decoder(vocab, seed=5)
    encoded, lengths = random(2, 4, 16, seed=6), torch.tensor([4, 2])
    log_probs = random(2, 4, vocab, seed=7).log_softmax(dim=-1)
    config = JointBeamConfig(
        beam_size=200, nbest=200, ctc_weight=ctc_weight, penalty=penalty, maxlenratio=1.0
    )
    found = JointSearch(config, decoder)(encoded, log_probs, lengths)
    for row, frames in enumerate(lengths.tolist()):
        sums = path_sums(log_probs[row, :frames])
        expected = []
        for size in range(frames):
            for reading in itertools.product(range(1, eos), repeat=size):
                whole = torch.tensor([[eos, *reading]])
                scores = decoder(
                    whole,
                    torch.tensor([size + 1]),
                    encoded[row : row + 1, :frames],
                    lengths[row:][:1],
                )[0].log_softmax(dim=-1)
                attention = sum(scores[i, t].item() for i, t in enumerate([*reading, eos]))
                ctc = math.log(sums[reading]) if sums.get(reading) else -math.inf
                score = (1 - ctc_weight) * attention if ctc_weight < 1 else 0.0
                score += ctc_weight * ctc if ctc_weight > 0 else 0.0
                expected.append((score + penalty * (size + 1), list(reading)))
        expected = sorted((pair for pair in expected if pair[0] > -math.inf), reverse=True)
        # Those as long as the limit ended without a word from the scorers: they are not compared.
        ended = [h for h in found[row] if len(h.tokens) < frames]
        assert len(ended) == len(expected)
        assert [h.tokens for h in ended] == [reading for _, reading in expected]
        for hypothesis, (score, _) in zip(ended, expected, strict=True):
            assert hypothesis.score == pytest.approx(score, abs=1e-4)
            weights = {"decoder": 1 - ctc_weight, "ctc": ctc_weight, "length_bonus": penalty}
            total = sum(weights[name] * part for name, part in hypothesis.parts.items())
            assert total == pytest.approx(score, abs=1e-4)


def golden() -> tuple[dict, dict, list[torch.Tensor], list[dict]]:
    with safe_open(GOLDEN, "pt") as file:
        stored = json.loads(file.metadata()["golden"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    encoded = [tensors[f"encoded/{number}"] for number in range(4)]
    return stored["numbers"], tensors, encoded, stored["cases"]


@pytest.mark.parametrize("case, together", [(0, False), *((case, True) for case in range(9))])
@torch.inference_mode()
def test_same_nbest_as_espnet(case, together):
    numbers, tensors, encoded, cases = golden()
    setting, expected = cases[case]["setting"], cases[case]["nbest"]
    decoder = TransformerDecoder(**numbers).eval()
    prefix = "weights/"
    weights = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    decoder.load_state_dict(decoder_from_espnet(weights))
    search = JointSearch(JointBeamConfig(**setting, nbest=setting["beam_size"]), decoder)
    head = tensors["ctc/ctc_lo.weight"], tensors["ctc/ctc_lo.bias"]
    found = []
    for group in [encoded] if together else [[x] for x in encoded]:
        lengths = torch.tensor([len(x) for x in group])
        padded = torch.nn.utils.rnn.pad_sequence(group, batch_first=True, padding_value=1e3)
        log_probs = torch.nn.functional.linear(padded, *head).log_softmax(dim=-1)
        found += search(padded, log_probs, lengths)
    for ours, theirs in zip(found, expected, strict=True):
        assert [h.tokens for h in ours] == [h["tokens"] for h in theirs]
        for hypothesis, reference in zip(ours, theirs, strict=True):
            assert hypothesis.score == pytest.approx(reference["score"], abs=1e-4)
            for name, part in hypothesis.parts.items():
                assert part == pytest.approx(reference["parts"][name], abs=1e-4)


def test_an_utterance_without_frames_is_empty():
    config = JointBeamConfig(beam_size=2)
    decoder = make_decoder(5)
    log_probs = random(3, 4, 5, seed=8).log_softmax(dim=-1)
    lengths = torch.tensor([0, 4, 0])
    found = JointSearch(config, decoder)(random(3, 4, 16, seed=9), log_probs, lengths)
    assert [h.tokens for h in found[0]] == [h.tokens for h in found[2]] == [[]]
    assert found[0][0].score == 0.0
    assert found[1][0].score < 0
    nothing = JointSearch(config, decoder)(
        torch.zeros(1, 0, 16), torch.zeros(1, 0, 5), torch.tensor([0])
    )
    assert [h.tokens for h in nothing[0]] == [[]]


def test_scores_that_are_not_numbers_give_no_hypothesis():
    config = JointBeamConfig(beam_size=2)
    log_probs = torch.full((1, 4, 5), math.nan)
    found = JointSearch(config, make_decoder(5))(
        torch.full((1, 4, 16), math.nan), log_probs, torch.tensor([4])
    )
    assert found == [[]]


class Bigram:
    """A language model as a Scorer: its state is the last token of each hypothesis."""

    def __init__(self, table: torch.Tensor, utterances: int, beam: int, sos: int):
        self.table = table
        self.last = torch.full((utterances, beam), sos)

    def score(self):
        return self.table[self.last]

    def advance(self, parents, tokens):
        self.last = tokens

    def keep(self, utterances):
        self.last = self.last[utterances]


def test_a_further_scorer_takes_part():
    """With weight on the table alone the best hypothesis is the best path of the bigram."""
    eos = 4
    table = torch.full((5, 5), -6.0)
    for last, following in [(eos, 2), (2, 1), (1, 3), (3, eos)]:
        table[last, following] = -0.1
    found = beam_search(
        {"lm": Bigram(table, 2, 4, eos)},
        {},
        weights={"lm": 0.5},
        frames=[6, 9],
        vocab=5,
        eos=eos,
        limits=BeamLimits(4, nbest=2),
    )
    for nbest in found:
        assert nbest[0].tokens == [2, 1, 3]
        assert nbest[0].score == pytest.approx(0.5 * -0.4)
        assert nbest[0].parts == pytest.approx({"lm": -0.4})
