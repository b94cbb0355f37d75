"""Probes against sums by hand; the encoder under them stays as it is."""

import copy

import pytest
import torch
from torch.nn import functional

from espnet_lite.config import from_plain
from espnet_lite.data.utterance import Batch
from espnet_lite.encoders.families import ENCODERS
from espnet_lite.encoders.front_end import FRONT_ENDS
from espnet_lite.features.fbank import Fbank
from espnet_lite.features.frame_grid import FrameGrid
from espnet_lite.models.hubert import HubertConfig, HubertModel
from espnet_lite.models.probe import (
    CtcProbe,
    EncoderUpstream,
    FbankUpstream,
    HiddenStates,
    LayerSum,
    PhoneProbe,
)

GRID = FrameGrid(100, 10, 10)


class Tables:
    """An upstream that looks its hidden states up: frame t of a waveform is named by sample 10 t."""

    grid, layers, dim = GRID, 3, 4

    def __init__(self):
        generator = torch.Generator().manual_seed(3)
        self.table = torch.randn(3, 50, 4, generator=generator).bfloat16().float()
        self.calls = []

    def __call__(self, waveform, lengths):
        self.calls.append(waveform.size(0))
        return self.table[:, waveform[:, ::10].long()], lengths // 10


def batch_of(names: str, *, tokens=None) -> Batch:
    """Return utterances a (3 frames), b (5) and c (1); their labels are the frames' numbers mod 3."""
    sizes = {"a": (0, 3), "b": (10, 5), "c": (20, 1)}
    longest = max(sizes[name][1] for name in names)
    waveform = torch.zeros(len(names), 10 * longest)
    units = torch.full((len(names), longest), -1)
    for row, name in enumerate(names):
        first, count = sizes[name]
        numbers = torch.arange(first, first + count)
        waveform[row, : 10 * count] = numbers.repeat_interleave(10)
        units[row, :count] = numbers % 3
    lengths = torch.tensor([10 * sizes[name][1] for name in names])
    token_lengths = None if tokens is None else (tokens != -1).sum(dim=1)
    return Batch(list(names), waveform, lengths, tokens, token_lengths, 7, units)


def filled(probe, seed: int = 1):
    torch.manual_seed(seed)
    for parameter in probe.parameters():
        torch.nn.init.normal_(parameter)
    return probe


def test_the_sum_by_hand():
    layer_sum = LayerSum(2)
    states = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 9.0]]])
    assert layer_sum(states).tolist() == [[3.0, 4.0], [5.0, 6.5]]  # equal weights at first
    with torch.no_grad():
        layer_sum.logits.copy_(torch.tensor([0.0, 3.0]).log())  # softmax 0 : 1
    assert layer_sum(states).tolist() == states[1].tolist()
    with torch.no_grad():
        layer_sum.logits.copy_(torch.tensor([1.0, 3.0]).log())  # 1/4 : 3/4
    torch.testing.assert_close(layer_sum(states)[0], torch.tensor([4.0, 5.0]))


def test_phones_against_one_frame_at_a_time():
    upstream = Tables()
    probe = filled(PhoneProbe(HiddenStates(upstream), classes=3))
    weights = torch.exp(probe.layer_sum.logits) / torch.exp(probe.layer_sum.logits).sum()
    total, right, right_speech, speech = 0.0, 0, 0, 0
    for number in [0, 1, 2, 10, 11, 12, 13, 14, 20]:
        frame = sum(weights[i] * upstream.table[i, number] for i in range(3))
        logits = probe.head.weight @ frame + probe.head.bias
        wanted = number % 3
        total += logits.exp().sum().log() - logits[wanted]
        is_right = int(logits.argmax()) == wanted
        right, speech = right + is_right, speech + (wanted != 0)
        right_speech += is_right and wanted != 0
    loss = probe(batch_of("abc"))
    torch.testing.assert_close(loss.total, total, atol=1e-5, rtol=1e-5)
    assert loss.count == 9
    metrics = {name: (float(value), count) for name, (value, count) in loss.metrics.items()}
    assert metrics["accuracy"] == (right, 9) and metrics["accuracy_speech"] == (right_speech, 7)
    assert metrics["silence"] == (2, 9) and speech == 7
    ours = torch.autograd.grad(loss.total, list(probe.parameters()))
    slow = torch.autograd.grad(total, list(probe.parameters()))
    for a, b in zip(ours, slow, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_an_utterance_is_encoded_once_and_in_any_company():
    upstream = Tables()
    probe = filled(PhoneProbe(HiddenStates(upstream), classes=3))
    losses = [float(probe(batch_of(names)).total.detach()) for names in ("ab", "bc", "ca", "cab")]
    assert upstream.calls == [2, 2]  # c was new in the second
    forgetful = filled(PhoneProbe(HiddenStates(Tables(), gigabytes=0.0), classes=3))
    again = [
        float(forgetful(batch_of(names)).total.detach()) for names in ("ab", "bc", "ca", "cab")
    ]
    assert losses == again
    assert forgetful.states.upstream.calls == [2, 2, 2, 3]
    single = sum(float(forgetful(batch_of(name)).total.detach()) for name in "abc")
    assert single == pytest.approx(losses[3], rel=1e-5)


def test_states_first_seen_in_inference_mode_can_be_trained_on():
    probe = filled(PhoneProbe(HiddenStates(Tables()), classes=3))
    with torch.inference_mode():
        probe.eval()(batch_of("ab"))
    probe.train()(batch_of("ab")).total.backward()
    assert all(parameter.grad is not None for parameter in probe.parameters())


def test_normalized_layers_by_hand():
    upstream = Tables()
    states, lengths = HiddenStates(upstream, normalize=True)(batch_of("ca"))
    assert lengths.tolist() == [1, 3]
    x = upstream.table[:, [20, 0, 1, 2]]
    expected = (x - x.mean(dim=-1, keepdim=True)) / x.std(dim=-1, correction=0, keepdim=True)
    torch.testing.assert_close(states, expected, atol=0.01, rtol=0.01)  # bf16, and an ε


def test_labels_that_are_not_the_frames_are_a_fault_of_the_program():
    probe = PhoneProbe(HiddenStates(Tables()), classes=3)
    batch = batch_of("ab")
    batch.units[0, 2] = -1
    with pytest.raises(ValueError, match=r"\[2, 5\] labels for \[3, 5\] frames of a, b"):
        probe(batch)


def test_ctc_against_one_utterance_at_a_time():
    upstream = Tables()
    probe = filled(CtcProbe(HiddenStates(upstream), classes=4))
    tokens = torch.tensor([[1, 2, -1], [3, 3, 1], [2, 1, -1]])  # c's two do not fit its frame
    loss = probe.eval()(batch_of("abc", tokens=tokens))
    total, errors = 0.0, 0
    weights = probe.layer_sum.logits.softmax(dim=0)
    for (first, count), row in zip([(0, 3), (10, 5), (20, 1)], tokens, strict=True):
        frames = torch.einsum("l,ltd->td", weights, upstream.table[:, first : first + count])
        log_probs = probe.head(frames).log_softmax(dim=-1)
        wanted = row[row != -1]
        one = functional.ctc_loss(
            log_probs, wanted, torch.tensor(count), torch.tensor(len(wanted)), reduction="sum"
        )
        total += one if one.isfinite() else 0.0
        path = [int(best) for best in log_probs.argmax(dim=-1)]
        said = [t for i, t in enumerate(path) if t != 0 and (i == 0 or t != path[i - 1])]
        errors += edit_distance(said, wanted.tolist())
    torch.testing.assert_close(loss.total, total, atol=1e-5, rtol=1e-5)
    assert loss.count == 3 and loss.metrics["token_error"] == (errors, 7)
    loss.total.backward()
    assert all(p.grad.isfinite().all() for p in probe.parameters())


def edit_distance(a: list[int], b: list[int]) -> int:
    if not a or not b:
        return len(a) + len(b)
    substituted = edit_distance(a[1:], b[1:]) + (a[0] != b[0])
    return min(substituted, 1 + edit_distance(a[1:], b), 1 + edit_distance(a, b[1:]))


SMALL = {"dim": 32, "layers": 2, "heads": 2, "feed_forward": 32, "dropout": 0.5}
OWN = {"squeezeformer": {"reduce_after": 0, "recover_after": 1}}


@pytest.mark.parametrize("name", ENCODERS)
def test_of_every_encoder_all_states_and_nothing_is_trained(name):
    torch.manual_seed(0)
    encoder = {"name": name, **SMALL, **OWN.get(name, {})}
    model = HubertModel(from_plain(HubertConfig, {"encoder": encoder}), clusters=2)
    model.eval()
    before = copy.deepcopy(model.state_dict())
    upstream = EncoderUpstream(model.encode, grid=model.front_end.grid, layers=3, dim=32)
    waveform = torch.randn(2, 16000) * 0.1
    lengths = torch.tensor([16000, 9000])
    frames = model.front_end.grid.num_frames(lengths)
    units = torch.where(torch.arange(int(frames.max())) < frames[:, None], 1, -1)
    probe = PhoneProbe(HiddenStates(upstream, gigabytes=0), classes=2)
    batch = Batch(["a", "b"], waveform, lengths, None, None, 1, units)
    states, _ = probe.train().states(batch)  # eval mode: the dropout of one half is off
    output = model.encode(waveform, lengths, return_layers=True)
    assert len(output.layers) == 3
    for ours, theirs in zip(states, [*output.layers[:2], output.encoded], strict=True):
        valid = torch.cat([theirs[i, :count] for i, count in enumerate(frames.tolist())])
        torch.testing.assert_close(ours, valid, atol=0.02, rtol=0.01)  # bf16
    optimizer = torch.optim.SGD(probe.parameters(), lr=0.1)
    probe(batch).total.backward()
    optimizer.step()
    assert set(probe.state_dict()) == {"layer_sum.logits", "head.weight", "head.bias"}
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize("stack", [1, 2, 4])
def test_filterbanks_are_normalized_and_their_neighbours_joined(stack):
    upstream = FbankUpstream(frame_ms=10 * stack)
    waveform = torch.randn(2, 16000, generator=torch.Generator().manual_seed(1)) * 0.1
    lengths = torch.tensor([16000, 8000])
    states, counts = upstream(waveform, lengths)
    assert counts.tolist() == upstream.grid.num_frames(lengths).tolist()
    assert (upstream.grid.shift_samples, upstream.dim) == (160 * stack, 80 * stack)
    frames, _ = Fbank(num_mels=80)(waveform[1:, :8000], lengths[1:])
    frames = (frames[0] - frames[0].mean(dim=0)) / frames[0].std(dim=0, correction=0)
    for t in range(int(counts[1])):
        joined = frames[t * stack : (t + 1) * stack].flatten()
        torch.testing.assert_close(states[0, 1, t], joined, atol=1e-4, rtol=1e-4)


def test_filterbanks_have_the_rate_of_the_front_ends():
    """40 ms as log_mel ×4, 20 ms as HuBERT's: the same frames but for one at the end."""
    for name, frame_ms in (("log_mel", 40), ("waveform", 20)):
        schema, front_end = FRONT_ENDS[name]
        theirs, ours = front_end(schema(), dim=8).grid, FbankUpstream(frame_ms=frame_ms).grid
        assert theirs.frame_ms == ours.frame_ms
        assert abs(theirs.num_frames(48000) - ours.num_frames(48000)) <= 1
