"""HuBERT's loss against a slow version by hand, its mask against published figures, its edges."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from espnet_lite.data.utterance import Batch
from espnet_lite.encoders.front_end import LogMelConfig, SpecAugmentConfig
from espnet_lite.encoders.transformer import TransformerConfig
from espnet_lite.models.hubert import (
    CosineHead,
    CosineHeadConfig,
    HubertConfig,
    HubertModel,
    SoftmaxHeadConfig,
    SpanMaskConfig,
    scale_gradient,
)
from espnet_lite.nn.masks import span_mask, valid_mask

CLUSTERS = 7
FRONT_END = LogMelConfig(
    num_mels=20,
    channels=3,
    cmvn="utterance",
    spec_augment=SpecAugmentConfig(frequency_masks=0, time_masks=0),
)


def build(*, layers: int = 2, **options) -> HubertModel:
    torch.manual_seed(0)
    encoder = TransformerConfig(dim=8, layers=layers, heads=2, feed_forward=12, dropout=0.0)
    config = HubertConfig(front_end=FRONT_END, encoder=encoder, **options)
    return HubertModel(config, clusters=CLUSTERS)


def make_batch(model: HubertModel, *, seed: int = 3, seconds=(1.6, 0.9)) -> Batch:
    generator = torch.Generator().manual_seed(5)
    lengths = torch.tensor([round(16000 * value) for value in seconds])
    waveform = 0.1 * torch.randn(len(lengths), int(lengths.max()), generator=generator)
    waveform *= valid_mask(lengths, waveform.size(1))
    frames = model.front_end.grid.num_frames(lengths)
    units = torch.randint(CLUSTERS, (len(lengths), int(frames.max())), generator=generator)
    units = units.masked_fill(~valid_mask(frames, units.size(1)), -1)
    return Batch(
        ids=[f"u{i}" for i in range(len(lengths))],
        waveform=waveform,
        waveform_lengths=lengths,
        tokens=None,
        token_lengths=None,
        seed=seed,
        units=units,
    )


def hidden_frames(model: HubertModel, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mask that the model draws for a batch, and the lengths."""
    lengths = model.front_end.grid.num_frames(batch.waveform_lengths)
    hidden = span_mask(
        lengths,
        batch.units.size(1),
        probability=model.config.mask.probability,
        span=model.span_frames,
        min_spans=model.config.mask.min_spans,
        generator=torch.Generator().manual_seed(batch.seed),
    )
    return hidden, lengths


def slow_logits(head: CosineHead, frame: torch.Tensor) -> list[float]:
    """HuBERT's eq. 3, one cosine at a time."""
    projected = head.project(frame)
    return [
        torch.cosine_similarity(projected, unit, dim=0).item() / head.temperature
        for unit in head.embeddings
    ]


def test_loss_and_accuracies_equal_a_slow_version():
    model = build().eval()
    batch = make_batch(model)
    hidden, lengths = hidden_frames(model, batch)
    features, _ = model.front_end(batch.waveform, batch.waveform_lengths)
    features[hidden] = model.mask_embedding
    encoded = model.encoder(features, lengths).encoded
    sums = {True: [0.0, 0, 0], False: [0.0, 0, 0]}  # masked or not: loss, right, frames
    for row, length in enumerate(lengths.tolist()):
        for frame in range(length):
            logits = slow_logits(model.head, encoded[row, frame])
            unit = int(batch.units[row, frame])
            total = sums[bool(hidden[row, frame])]
            total[0] += math.log(sum(map(math.exp, logits))) - logits[unit]
            total[1] += logits.index(max(logits)) == unit
            total[2] += 1
    loss = model(batch)
    assert loss.count == sums[True][2] > 0
    assert loss.total.item() == pytest.approx(sums[True][0], rel=1e-5)
    assert tuple(map(int, loss.metrics["accuracy"])) == tuple(sums[True][1:])
    assert tuple(map(int, loss.metrics["accuracy_unmasked"])) == tuple(sums[False][1:])
    assert loss.metrics["masked"] == (sums[True][2], int(lengths.sum()))


def test_penalty_unmasked_loss_and_inner_layers_add_up():
    plain = build(inner_layers=(1,))
    batch = make_batch(plain)
    both = build(inner_layers=(1,), feature_penalty=10.0, unmasked_weight=0.5)
    both.load_state_dict(plain.state_dict())
    first, second = plain.eval()(batch), both.eval()(batch)
    inner = first.metrics["loss_layer1"][0]
    masked = first.metrics["loss_masked"][0]
    torch.testing.assert_close(first.total, (inner + masked) / 2)
    local, lengths = plain.front_end.local(batch.waveform, batch.waveform_lengths)
    penalty = local[valid_mask(lengths, local.size(1))].square().mean()
    hidden, _ = hidden_frames(plain, batch)
    features = plain.front_end.project(local)
    features[hidden] = plain.mask_embedding
    seen = valid_mask(lengths, local.size(1)) & ~hidden
    logits = plain.head(plain.encoder(features, lengths).encoded[seen])
    unmasked = torch.nn.functional.cross_entropy(logits, batch.units[seen], reduction="sum")
    expected = first.total + 0.5 * unmasked + 10.0 * penalty * first.count
    torch.testing.assert_close(second.total, expected)


@pytest.mark.parametrize("head", [CosineHeadConfig(dim=6), SoftmaxHeadConfig()])
def test_every_parameter_gets_a_gradient(head):
    model = build(head=head, inner_layers=(1,)).train()
    model(make_batch(model)).total.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_padding_and_company_change_nothing():
    """A clip's share of the loss is the same alone, with another clip, and with loud padding."""
    model = build(mask=SpanMaskConfig(probability=1.0, span_ms=40.0, min_spans=1)).eval()
    batch = make_batch(model)  # every frame is hidden, whatever is drawn
    together = model(batch)
    parts = 0.0
    for row, length in enumerate(batch.waveform_lengths.tolist()):
        frames = model.front_end.grid.num_frames(length)
        alone = Batch(
            ids=[batch.ids[row]],
            waveform=batch.waveform[row : row + 1, :length],
            waveform_lengths=batch.waveform_lengths[row : row + 1],
            tokens=None,
            token_lengths=None,
            seed=9,
            units=batch.units[row : row + 1, :frames],
        )
        loss = model(alone)
        assert loss.count == frames
        parts += loss.total.item()
    assert together.total.item() == pytest.approx(parts, rel=1e-5)


class LargestTensor(TorchDispatchMode):
    """Remembers the most numbers in any tensor that an operation returned."""

    def __init__(self):
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, torch.Tensor):
                self.numbers = max(self.numbers, tensor.numel())
        return result


def test_nothing_of_frames_by_clusters_by_dim_is_made():
    head = CosineHead(CosineHeadConfig(dim=16), dim=8, clusters=50)
    x = torch.randn(40, 8, requires_grad=True)
    with LargestTensor() as largest:
        torch.nn.functional.cross_entropy(head(x), torch.arange(40)).backward()
    assert largest.numbers == 40 * 50


def test_same_seed_same_loss_other_seed_another_mask():
    model = build().eval()
    first = model(make_batch(model, seed=1)).total
    assert torch.equal(first, model(make_batch(model, seed=1)).total)
    assert not torch.equal(first, model(make_batch(model, seed=2)).total)


def test_a_clip_shorter_than_a_span_is_not_masked():
    model = build().eval()
    loss = model(make_batch(model, seconds=(0.15,)))  # 2 frames, a span has 5
    assert loss.count == 0 and loss.total.item() == 0.0


def test_silence_gives_finite_loss_and_gradients():
    model = build()
    batch = make_batch(model)
    batch.waveform.zero_()
    model(batch).total.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("seconds", [(1.6, 0.02), (0.02,)])
def test_a_clip_without_a_frame_changes_nothing(seconds):
    model = build(feature_penalty=10.0, inner_layers=(1,))
    loss = model(make_batch(model, seconds=seconds))
    loss.total.backward()
    assert math.isfinite(loss.total) and (loss.count > 0) == (len(seconds) > 1)
    for name, parameter in model.named_parameters():
        # One that has none would keep processes that train together waiting.
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name


def test_units_of_another_length_are_refused():
    model = build()
    batch = make_batch(model)
    expected = model(batch).total
    units = batch.units
    batch.units = torch.nn.functional.pad(units, (0, 3), value=-1)
    assert torch.equal(model(batch).total, expected)
    for wrong in (units[:, :-2], torch.nn.functional.pad(units, (0, 1), value=2), units.flip(1)):
        batch.units = wrong
        with pytest.raises(ValueError, match="units for"):
            model(batch)


def test_logits_are_fp32_where_the_rest_is_bf16():
    head = CosineHead(CosineHeadConfig(dim=6), dim=8, clusters=50)
    x = torch.randn(40, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        projected = head.project(x)
        logits = head(x)
    assert projected.dtype == torch.bfloat16 and logits.dtype == torch.float32
    cosine = torch.cosine_similarity(projected.float()[:, None], head.embeddings, dim=2)
    torch.testing.assert_close(logits, cosine / 0.1, rtol=1e-5, atol=1e-5)


def test_gradient_is_scaled_and_value_is_not():
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    y = scale_gradient(x, 0.1)
    assert torch.equal(y, x)
    y.square().sum().backward()
    torch.testing.assert_close(x.grad, 0.1 * 2 * x.detach())
    assert scale_gradient(x, 1) is x
