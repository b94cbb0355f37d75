"""The recognizer's losses against path sums by hand, padding, and what its metrics count."""

import itertools
import math

import pytest
import torch

from espnet_lite.data.utterance import Batch
from espnet_lite.decode.families import TransformerDecoderConfig
from espnet_lite.encoders.front_end import LogMelConfig, SpecAugmentConfig
from espnet_lite.encoders.transformer import TransformerConfig
from espnet_lite.models.asr import (
    AsrConfig,
    AsrModel,
    decoder_tokens,
    frames_needed,
)

VOCAB = 5
DECODER = TransformerDecoderConfig(layers=1, heads=2, feed_forward=12, dropout=0.0)
FRONT_END = LogMelConfig(
    num_mels=20,
    channels=3,
    cmvn="utterance",
    spec_augment=SpecAugmentConfig(frequency_masks=0, time_masks=0),
)


def samples_of(frames: int) -> int:
    """Return samples that give `frames` encoder frames: 4 · frames + 3 windows of 25 ms."""
    return 400 + 160 * (4 * frames + 2)


def build(*, front_end: LogMelConfig = FRONT_END, layers: int = 1, dropout=0.0, **options):
    torch.manual_seed(0)
    encoder = TransformerConfig(dim=8, layers=layers, heads=2, feed_forward=12, dropout=dropout)
    return AsrModel(AsrConfig(front_end=front_end, encoder=encoder, **options), vocab=VOCAB)


def make_batch(frames: list[int], texts: list[list[int]], *, seed: int = 3) -> Batch:
    lengths = [samples_of(n) for n in frames]
    waveform = torch.zeros(len(frames), max(lengths))
    for row, length in enumerate(lengths):
        generator = torch.Generator().manual_seed(row)
        waveform[row, :length] = torch.randn(length, generator=generator) * 0.1
    tokens = torch.full((len(texts), max(map(len, texts))), -1)
    for row, text in enumerate(texts):
        tokens[row, : len(text)] = torch.tensor(text, dtype=torch.int64)
    return Batch(
        ids=[f"utt{row}" for row in range(len(frames))],
        waveform=waveform,
        waveform_lengths=torch.tensor(lengths),
        tokens=tokens,
        token_lengths=torch.tensor([len(text) for text in texts]),
        seed=seed,
    )


def row_of(batch: Batch, row: int) -> Batch:
    """Return one utterance of a batch without its padding."""
    samples, tokens = int(batch.waveform_lengths[row]), int(batch.token_lengths[row])
    return Batch(
        ids=[batch.ids[row]],
        waveform=batch.waveform[row : row + 1, :samples],
        waveform_lengths=batch.waveform_lengths[row : row + 1],
        tokens=batch.tokens[row : row + 1, :tokens],
        token_lengths=batch.token_lengths[row : row + 1],
        seed=batch.seed,
    )


def collapsed(path: tuple[int, ...]) -> list[int]:
    return [token for token, _ in itertools.groupby(path) if token != 0]


def path_sum(log_probs: torch.Tensor, text: list[int]) -> float:
    """Return -log of the probability of all paths that read as `text`."""
    frames = log_probs.double().exp().tolist()
    total = 0.0
    for path in itertools.product(range(VOCAB), repeat=len(frames)):
        if collapsed(path) == text:
            total += math.prod(frame[token] for frame, token in zip(frames, path, strict=True))
    return -math.log(total)


def log_probs_of(model: AsrModel, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    output = model.encode(batch.waveform, batch.waveform_lengths)
    return model.ctc_log_probs(output.encoded), output.lengths


@torch.no_grad()
def test_ctc_loss_is_the_sum_over_all_paths():
    model = build().eval()
    texts = [[2, 3], [1, 1], [4], []]
    batch = make_batch([4, 4, 2, 3], texts)
    log_probs, lengths = log_probs_of(model, batch)
    assert lengths.tolist() == [4, 4, 2, 3]
    expected = sum(
        path_sum(log_probs[row, :length], text)
        for row, (length, text) in enumerate(zip(lengths.tolist(), texts, strict=True))
    )
    loss = model(batch)
    assert float(loss.total) == pytest.approx(expected, rel=1e-5)
    assert loss.count == 4 and loss.metrics["loss_ctc"][1] == 4
    assert float(loss.metrics["loss"][0]) == pytest.approx(expected, rel=1e-5)


@torch.no_grad()
def test_attention_loss_is_the_smoothed_cross_entropy():
    model = build(decoder=DECODER, label_smoothing=0.2, ctc_weight=0.3).eval()
    batch = make_batch([4, 5], [[2, 3, 1], [4]])
    output = model.encode(batch.waveform, batch.waveform_lengths)
    expected, right = 0.0, 0
    # <sos/eos> is 4 here; what is read, and what should come next.
    for row, (read, following) in enumerate([([4, 2, 3, 1], [2, 3, 1, 4]), ([4, 4], [4, 4])]):
        length = output.lengths[row : row + 1]
        logits = model.decoder(
            torch.tensor([read]),
            torch.tensor([len(read)]),
            output.encoded[row : row + 1, : int(length)],
            length,
        )
        for scores, token in zip(logits[0].tolist(), following, strict=True):
            norm = math.log(sum(math.exp(score) for score in scores))
            target = [0.8 * (i == token) + 0.2 / VOCAB for i in range(VOCAB)]
            expected -= sum(t * (s - norm) for t, s in zip(target, scores, strict=True))
            right += max(range(VOCAB), key=scores.__getitem__) == token
    loss = model(batch)
    assert float(loss.metrics["loss_attention"][0]) == pytest.approx(expected, rel=1e-5)
    assert (int(loss.metrics["accuracy"][0]), loss.metrics["accuracy"][1]) == (right, 6)
    ctc = float(loss.metrics["loss_ctc"][0])
    assert float(loss.total) == pytest.approx(0.3 * ctc + 0.7 * expected, rel=1e-5)


@pytest.mark.parametrize("decoder", [None, DECODER])
@pytest.mark.parametrize("training", [False, True])
def test_the_loss_of_a_batch_is_the_sum_of_its_utterances(decoder, training):
    model = build(decoder=decoder).train(training)
    batch = make_batch([9, 4, 6], [[2, 3, 1, 2], [1], [2, 2]])
    with torch.no_grad():
        alone = [float(model(row_of(batch, row)).total) for row in range(3)]
        assert float(model(batch).total) == pytest.approx(sum(alone), rel=1e-5)


@pytest.mark.parametrize("decoder", [None, DECODER])
def test_what_cannot_be_aligned_is_left_out_and_counted(decoder):
    model = build(decoder=decoder, ctc_weight=1.0)
    texts = [[2, 3], [1, 1, 1], [2]]  # three equal tokens need five frames
    batch = make_batch([5, 4, 4], texts)
    loss = model(batch)
    rest = sum(float(model(row_of(batch, row)).total.detach()) for row in (0, 2))
    assert float(loss.total.detach()) == pytest.approx(rest, rel=1e-5)
    total, count = loss.metrics["unalignable"]
    assert (int(total), count, loss.count) == (1, 3, 3)
    loss.total.backward()
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    assert grads and all(torch.isfinite(grad).all() for grad in grads)


def test_a_clip_without_frames_is_unalignable_and_harmless():
    model = build(decoder=DECODER)
    batch = make_batch([5, 4], [[2, 3], []])
    batch.waveform_lengths[1] = 100
    batch.waveform[1, 100:] = 0.0
    loss = model(batch)
    assert int(loss.metrics["unalignable"][0]) == 1
    first = float(model(row_of(batch, 0)).metrics["loss_ctc"][0])
    assert float(loss.metrics["loss_ctc"][0]) == pytest.approx(first, rel=1e-5)
    loss.total.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_texts_may_all_be_empty():
    model = build(decoder=DECODER).eval()
    batch = make_batch([4, 3], [[], []])
    log_probs, _ = log_probs_of(model, batch)
    expected = -float((log_probs[0, :4, 0].sum() + log_probs[1, :3, 0].sum()).detach())
    assert float(model(batch).metrics["loss_ctc"][0]) == pytest.approx(expected, rel=1e-5)


@torch.no_grad()
def test_greedy_errors_are_counted_in_evaluation_only():
    model = build()
    model.ctc_head.weight.zero_()
    model.ctc_head.bias.copy_(torch.tensor([0.0, 0, 1, 0, 0]))  # every frame says token 2
    batch = make_batch([5, 4, 3], [[2], [3, 2, 1], []])
    assert "ctc_error" not in model.train()(batch).metrics
    # [2] is right; in [3, 2, 1] two are missing; the empty text got one too many
    assert model.eval()(batch).metrics["ctc_error"] == (3.0, 4.0)


@torch.no_grad()
def test_intermediate_ctc_is_mixed_in_by_its_weight():
    batch = make_batch([6, 5], [[2, 3], [1]])
    plain = build(layers=2).eval()
    last = float(plain(batch).total)
    same = build(layers=2, inter_ctc_layers=(2,)).eval()
    assert float(same(batch).total) == pytest.approx(last, rel=1e-5)
    mixed = build(layers=2, inter_ctc_layers=(1,), inter_ctc_weight=0.4).eval()
    output = mixed.encode(batch.waveform, batch.waveform_lengths, return_layers=True)
    inner = mixed.ctc_log_probs(mixed.encoder.norm(output.layers[1]))
    first = path_sum(inner[0, :6], [2, 3]) + path_sum(inner[1, :5], [1])
    assert float(mixed(batch).total) == pytest.approx(0.6 * last + 0.4 * first, rel=1e-5)


def test_masks_follow_the_seed_of_the_batch():
    model = build(front_end=LogMelConfig(num_mels=20, channels=3, cmvn="utterance")).train()
    texts = [[2, 3], [1]]
    losses = [float(model(make_batch([30, 20], texts, seed=s)).total.detach()) for s in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize("decoder", [None, DECODER])
def test_every_parameter_gets_a_gradient(decoder):
    model = build(decoder=decoder)
    model(make_batch([9, 6], [[2, 3, 1], [1, 2]])).total.backward()
    for name, parameter in model.named_parameters():
        if not name.endswith("key.bias"):  # softmax ignores it
            assert float(parameter.grad.abs().max()) > 0, name


@pytest.mark.parametrize("text", [[], [1], [1, 1], [1, 2, 1], [1, 1, 1], [2, 2, 1, 1]])
def test_frames_needed_is_the_shortest_path(text):
    shortest = next(
        frames
        for frames in range(1, 8)
        if any(collapsed(p) == text for p in itertools.product(range(3), repeat=frames))
    )
    padded = torch.tensor([[*text, -1, -1]])
    assert frames_needed(padded, torch.tensor([len(text)])).tolist() == [shortest]


def test_decoder_reads_from_start_and_ends_with_it():
    tokens = torch.tensor([[5, 6, 7], [5, -1, -1], [-1, -1, -1]])
    tokens_in, tokens_out = decoder_tokens(tokens, torch.tensor([3, 1, 0]), 9)
    assert tokens_in.tolist() == [[9, 5, 6, 7], [9, 5, 9, 9], [9, 9, 9, 9]]
    assert tokens_out.tolist() == [[5, 6, 7, 9], [5, 9, -1, -1], [9, -1, -1, -1]]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"ctc_weight": 1.5}, "ctc_weight 1.5 is not at least 0 and at most 1"),
        ({"inter_ctc_weight": -0.1}, "inter_ctc_weight -0.1 is not at least 0"),
        ({"label_smoothing": 2.0}, "label_smoothing 2.0 is not at least 0"),
        ({"inter_ctc_layers": (1, 9)}, "inter_ctc_layers 9 is not at least 1 and at most 3"),
        ({"inter_ctc_layers": (0,)}, "inter_ctc_layers 0 is not at least 1"),
        (
            {"decoder": TransformerDecoderConfig(heads=3)},
            "encoder.dim 8, the decoder's width, is not a multiple of decoder.heads 3",
        ),
    ],
)
def test_senseless_recognizers_are_refused(values, message):
    encoder = TransformerConfig(dim=8, layers=3, heads=2)
    AsrConfig(encoder=encoder, decoder=DECODER, inter_ctc_layers=(1, 3))
    with pytest.raises(ValueError, match=message):
        AsrConfig(encoder=encoder, **values)


@pytest.mark.parametrize("value", [-0.1, 1.0, 1.5])
def test_a_decoders_dropout_is_a_part(value):
    with pytest.raises(ValueError, match=f"dropout {value} is not at least 0 and below 1"):
        TransformerDecoderConfig(dropout=value)
