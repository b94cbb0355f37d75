"""Every encoder learns as a recognizer, with losses at inner layers, and under HuBERT."""

import pytest
import torch

from espnet_lite.data.utterance import UNIT_PADDING, Batch
from espnet_lite.decode.families import TransformerDecoderConfig
from espnet_lite.encoders.families import ENCODERS
from espnet_lite.encoders.front_end import LogMelConfig, SpecAugmentConfig
from espnet_lite.models.asr import AsrConfig, AsrModel
from espnet_lite.models.hubert import HubertConfig, HubertModel, SpanMaskConfig

# Small members of each family, all of three blocks; a new encoder needs a line here.
_NUMBERS = {"dim": 32, "layers": 3, "heads": 2, "feed_forward": 48, "dropout": 0.0}
_HUBERT = {**_NUMBERS, "position_kernel": 6, "position_groups": 4, "layerdrop": 0.0}
SMALL = {
    "transformer": _NUMBERS,
    "conformer": {**_NUMBERS, "kernel": 7},
    "squeezeformer": {**_NUMBERS, "kernel": 7, "reduce_after": 1, "recover_after": 2},
    "sparseformer": {**_NUMBERS, "window_seconds": 0.12, "global_tokens": 1},
    "hubert_base": _HUBERT,
    "hubert_large": _HUBERT,
}
FRONT_END = LogMelConfig(
    num_mels=20,
    channels=4,
    cmvn="utterance",
    spec_augment=SpecAugmentConfig(frequency_masks=0, time_masks=0),
)
CLUSTERS = 6
STEPS = 12


def make_batch(model: torch.nn.Module) -> Batch:
    """Return two clips of tones, the second shorter, with a token a tone and a unit a frame."""
    samples, tones = torch.tensor([24000, 15000]), [[1, 2, 3], [3, 1]]
    waveform = torch.zeros(2, 24000)
    for row, tokens in enumerate(tones):
        length = int(samples[row]) // len(tokens)
        for place, token in enumerate(tokens):
            time = torch.arange(length) / 16000
            part = slice(place * length, (place + 1) * length)
            waveform[row, part] = 0.1 * torch.sin(2 * torch.pi * 400 * token * time)
    lengths = model.front_end.grid.num_frames(samples)
    units = torch.full((2, int(lengths.max())), UNIT_PADDING)
    for row, length in enumerate(lengths.tolist()):
        units[row, :length] = torch.arange(length) * len(tones[row]) // length
    return Batch(
        ids=["first", "second"],
        waveform=waveform,
        waveform_lengths=samples,
        tokens=torch.tensor([[1, 2, 3], [3, 1, -1]]),
        token_lengths=torch.tensor([3, 2]),
        units=units,
        seed=5,
    )


def make_model(name: str, task: str) -> torch.nn.Module:
    torch.manual_seed(0)
    encoder = ENCODERS[name][0](**SMALL[name])
    if task == "hubert":
        config = HubertConfig(
            front_end=FRONT_END,
            encoder=encoder,
            mask=SpanMaskConfig(probability=0.5, span_ms=80.0),
            unmasked_weight=1.0,
            inner_layers=(1, 2),
        )
        return HubertModel(config, clusters=CLUSTERS)
    config = AsrConfig(
        front_end=FRONT_END,
        encoder=encoder,
        decoder=TransformerDecoderConfig(layers=1, heads=2, feed_forward=16, dropout=0.0),
        inter_ctc_layers=(1, 2),
    )
    return AsrModel(config, vocab=5)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("task", ["asr", "hubert"])
@pytest.mark.parametrize("name", ENCODERS)
def test_a_few_steps_lower_the_loss_and_move_every_parameter(name, task, precision):
    model = make_model(name, task).train()
    batch = make_batch(model)
    before = {key: parameter.clone() for key, parameter in model.named_parameters()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    losses = []
    for _ in range(STEPS):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
            loss = model(batch)
        (loss.total / loss.count).backward()
        losses.append(float(loss.total.detach()) / loss.count)
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < 0.8 * losses[0], losses
    # The mask's vector stands for frames of which a clip may have none.
    assert all(not torch.equal(before[key], p) for key, p in model.named_parameters())


@pytest.mark.parametrize("name", ENCODERS)
def test_a_trained_recognizer_hears_the_same_alone_and_in_a_batch(name):
    model = make_model(name, "asr").train()
    batch = make_batch(model)
    model(batch)  # moves the running statistics, where there are any
    model.eval()
    with torch.no_grad():
        output = model.encode(batch.waveform, batch.waveform_lengths)
        for row, samples in enumerate(batch.waveform_lengths.tolist()):
            alone = model.encode(
                batch.waveform[row : row + 1, :samples], batch.waveform_lengths[row : row + 1]
            )
            length = int(alone.lengths)
            assert length == int(output.lengths[row])
            torch.testing.assert_close(
                output.encoded[row, :length], alone.encoded[0], atol=2e-5, rtol=1e-4
            )
