"""Language models in the joint beam: steps against whole passes, search against enumeration, misuse."""

import itertools

import pytest
import torch

from espnet_lite.decode.config import CtcBeamConfig, DecodeConfig, JointBeamConfig
from espnet_lite.decode.joint import JointSearch
from espnet_lite.decode.language_model import load_language_model
from espnet_lite.decode.ngram_scorer import NgramScorer, TokenNgram
from espnet_lite.decode.searches import build_search
from espnet_lite.decode.transformer_scorer import TokenTransformer, TransformerScorer
from espnet_lite.errors import InputError
from espnet_lite.lm.kneser_ney import estimate
from espnet_lite.lm.ngram import SPECIAL_WORDS
from espnet_lite.lm.packed import read_transformer, write_ngram, write_transformer
from espnet_lite.lm.transformer import TransformerLm, TransformerLmConfig
from espnet_lite.nn.decoder import TransformerDecoder
from espnet_lite.text.tokenizer import train_tokenizer

TOKENS = ["<blank>", "<unk>", "a", "b", "<sos/eos>"]
CONFIG = TransformerLmConfig(dim=8, heads=2, feed_forward=12, layers=2)


def random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def make_transformer(vocab: int = 5) -> TransformerLm:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = TransformerLm(CONFIG, vocab=vocab).eval()
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            parameter.add_(0.3 * random(*parameter.shape, seed=number))
    return model


def make_ngram(order: int = 3) -> TokenNgram:
    words = [*SPECIAL_WORDS, *TOKENS[2:-1]]
    return TokenNgram(estimate([[3, 4, 4], [4, 3], [3]], words, order=order).model, TOKENS)


def lm_of(family: str):
    return (
        make_ngram() if family == "ngram" else TokenTransformer(make_transformer(), TOKENS, TOKENS)
    )


@torch.inference_mode()
def whole_score(family: str, tokens: list[int]) -> float:
    """Return log p of tokens with <sos/eos> at their end, by a whole pass or the model itself."""
    eos = len(TOKENS) - 1
    if family == "transformer":
        row = torch.tensor([[eos, *tokens]])
        scores = make_transformer()(row, torch.tensor([len(tokens) + 1])).log_softmax(dim=-1)[0]
        return sum(scores[i, token].item() for i, token in enumerate([*tokens, eos]))
    ngram, total = make_ngram(), 0.0
    state = torch.tensor([ngram.start])
    for token in [*tokens, eos]:
        total += ngram.rows(state)[0, token].item()
        state = ngram.after(state, torch.tensor([token]))
    return total


@torch.inference_mode()
def test_transformer_steps_equal_the_whole_forward_pass():
    """While beams reorder, utterances leave and the pool is made anew."""
    model, beam = make_transformer(), 3
    scorer = TransformerScorer(TokenTransformer(model, TOKENS, TOKENS), utterances=2, beam=beam)
    tokens = torch.full((2, beam, 1), 4)
    generator = torch.Generator().manual_seed(2)
    for step in range(70):
        rows = tokens.flatten(0, 1)
        expected = model(rows, torch.full((len(rows),), step + 1))[:, -1].log_softmax(dim=-1)
        torch.testing.assert_close(scorer.score().flatten(0, 1), expected, rtol=0, atol=1e-5)
        parents = torch.randint(0, beam, (len(tokens), beam), generator=generator)
        new = torch.randint(0, 5, (len(tokens), beam), generator=generator)
        scorer.advance(parents, new)
        before = tokens.gather(1, parents[..., None].expand_as(tokens))
        tokens = torch.cat([before, new[..., None]], dim=2)
        if step == 40:
            scorer.keep(torch.tensor([1]))
            tokens = tokens[1:]


def test_padding_never_changes_a_sentence():
    model = make_transformer()
    tokens = torch.tensor([[4, 2, 3, 3], [4, 3, -1, 7]])
    whole = model(tokens, torch.tensor([4, 2]))
    torch.testing.assert_close(model(tokens[1:, :2], torch.tensor([2]))[0], whole[1, :2])


@torch.inference_mode()
def test_ngram_scorer_follows_its_hypotheses():
    ngram = make_ngram()
    scorer = NgramScorer(ngram, utterances=2, beam=2)
    scorer.advance(torch.tensor([[0, 1], [0, 0]]), torch.tensor([[2, 3], [3, 2]]))
    scorer.keep(torch.tensor([1]))
    scorer.advance(torch.tensor([[1, 0]]), torch.tensor([[2, 2]]))
    for slot, tokens in enumerate(([2, 2], [3, 2])):
        state = torch.tensor([ngram.start])
        for token in tokens:
            state = ngram.after(state, torch.tensor([token]))
        torch.testing.assert_close(scorer.score()[0, slot], ngram.rows(state)[0])


def test_rows_are_computed_anew_when_the_cache_is_full(monkeypatch):
    monkeypatch.setattr("espnet_lite.decode.ngram_scorer.CACHE_BYTES", 0)
    monkeypatch.setattr("espnet_lite.decode.ngram_scorer._FIRST_ROWS", 2)
    small, large = make_ngram(), None
    monkeypatch.undo()
    large = make_ngram()
    for states in itertools.permutations(range(4), 2):
        torch.testing.assert_close(
            small.rows(torch.tensor(states)), large.rows(torch.tensor(states))
        )


@pytest.mark.parametrize("family", ["ngram", "transformer"])
@pytest.mark.parametrize("ctc_weight", [0.0, 0.4, 1.0])
@torch.inference_mode()
def test_a_wide_joint_beam_finds_the_best_of_all_hypotheses(family, ctc_weight):
    """All token sequences up to the length, scored by whole passes and by enumerated paths."""
    vocab, eos, longest, weight, bonus = 5, 4, 3, 0.7, 0.3
    with torch.random.fork_rng():
        torch.manual_seed(3)
        decoder = TransformerDecoder(vocab=vocab, dim=8, heads=2, feed_forward=8, layers=1).eval()
    encoded = random(1, 4, 8, seed=4)
    log_probs = (2 * random(1, 4, vocab, seed=5)).log_softmax(dim=-1)
    paths: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(vocab), repeat=4):
        reading = tuple(token for token, _ in itertools.groupby(path) if token != 0)
        value = log_probs[0, range(4), list(path)].double().sum().exp().item()
        paths[reading] = paths.get(reading, 0.0) + value
    expected = {}
    for length in range(longest):
        for tokens in itertools.product((1, 2, 3), repeat=length):
            if ctc_weight and tokens not in paths:
                continue
            row = torch.tensor([[eos, *tokens]])
            scores = decoder(row, torch.tensor([length + 1]), encoded, torch.tensor([4]))
            scores = scores.log_softmax(dim=-1)[0]
            parts = {
                "decoder": sum(scores[i, t].item() for i, t in enumerate([*tokens, eos])),
                "lm": whole_score(family, list(tokens)),
                "ctc": torch.tensor(paths.get(tokens, 1.0)).log().item(),
                "length_bonus": length + 1.0,
            }
            total = (1 - ctc_weight) * parts["decoder"] + ctc_weight * parts["ctc"]
            expected[tokens] = (total + weight * parts["lm"] + bonus * (length + 1), parts)
    config = JointBeamConfig(
        beam_size=200,
        nbest=200,
        ctc_weight=ctc_weight,
        lm_weight=weight,
        penalty=bonus,
        maxlenratio=-float(longest),
    )
    (found,) = JointSearch(config, decoder, lm_of(family))(encoded, log_probs, torch.tensor([4]))
    found = [hypothesis for hypothesis in found if len(hypothesis.tokens) < longest]
    assert {tuple(h.tokens) for h in found} == set(expected)
    for hypothesis in found:
        score, parts = expected[tuple(hypothesis.tokens)]
        assert hypothesis.score == pytest.approx(score, abs=1e-4)
        for name, part in hypothesis.parts.items():
            assert part == pytest.approx(parts[name], abs=1e-4), name
        assert ("decoder" in hypothesis.parts) == (ctc_weight < 1)


def test_models_of_other_tokens_are_refused(tmp_path):
    tokenizer = train_tokenizer("char", ["ab"])
    assert tokenizer.tokens == TOKENS
    config = JointBeamConfig(lm_weight=1.0)
    words = [*SPECIAL_WORDS, "a", "hello"]
    write_ngram(tmp_path / "x.esp", estimate([[3], [4]], words, order=1).model, unit="w", record={})
    with pytest.raises(
        InputError, match="1 of the language model's 2 words, 'hello' first, are not"
    ):
        load_language_model(tmp_path / "x.esp", tokenizer, config)
    weights = make_transformer().state_dict()
    write_transformer(tmp_path / "t.esp", weights, CONFIG, tokens=[*"wxyz", "v"], record={})
    with pytest.raises(
        InputError, match="of 5 tokens, the recognizer has 5; they differ from token 0"
    ):
        load_language_model(tmp_path / "t.esp", tokenizer, config)
    with pytest.raises(InputError, match="no such language model"):
        load_language_model(tmp_path / "none.esp", tokenizer, config)


def test_transformer_file_there_and_back(tmp_path):
    model = make_transformer()
    write_transformer(tmp_path / "t.esp", model.state_dict(), CONFIG, tokens=TOKENS, record={})
    again, tokens = read_transformer(tmp_path / "t.esp")
    assert tokens == TOKENS
    for name, weight in again.state_dict().items():
        torch.testing.assert_close(weight, model.state_dict()[name].bfloat16().float())
    lm = load_language_model(tmp_path / "t.esp", train_tokenizer("char", ["ab"]), DecodeConfig())
    assert isinstance(lm, TokenTransformer)
    with pytest.raises(InputError, match="takes an n-gram, and this language model is none"):
        build_search(CtcBeamConfig(lm_weight=0.5), None, lm)
    wrong = {**model.state_dict(), "bias": torch.zeros(3)}
    write_transformer(tmp_path / "w.esp", wrong, CONFIG, tokens=TOKENS, record={})
    with pytest.raises(InputError, match="tensor 'bias' has the shape"):
        read_transformer(tmp_path / "w.esp")
