"""The error analysis by hand: networks that differ in one known place."""

import copy

import pytest
import torch

from espnet_lite.quantize.analysis import (
    Disturbance,
    LayerNoise,
    Recording,
    UnitErrors,
    find_units,
    hybrid,
    record,
    subsets,
    transcript_loss,
)

UNITS = {
    "transformer": ["attention", "feed_forward"],
    "sparseformer": ["attention", "feed_forward"],
    "conformer": ["feed_forward", "attention", "convolution", "feed_forward"],
    "squeezeformer": ["attention", "feed_forward", "convolution", "feed_forward"],
    "hubert_base": ["attention", "feed_forward"],
}


def waveform(small_models, samples: int = 12000) -> torch.Tensor:
    return small_models.speech(samples)[0][0]


def test_units_are_the_modules_of_the_residual(small_models, encoder):
    units = find_units(small_models.small_model(encoder))
    assert list(units.values()) == 3 * UNITS[encoder]
    assert next(iter(units)).startswith("encoder.blocks.0.")


def test_an_error_in_one_unit_is_its_own_and_propagates_to_later_ones(small_models, encoder):
    reference = small_models.small_model(encoder)
    changed = copy.deepcopy(reference)
    units = find_units(reference)
    names = list(units)
    place = len(UNITS[encoder]) + 1  # the second unit of the second block
    unit = changed.get_submodule(names[place])
    with torch.no_grad():  # its output becomes three halves of what it was
        last = {"attention": "out", "feed_forward": "contract", "convolution": "pointwise_out"}
        layer = getattr(unit, last[units[names[place]]])
        layer.weight.mul_(1.5)
        layer.bias.mul_(1.5)
    errors = UnitErrors(reference, changed)
    for samples in (12000, 9000):
        audio = waveform(small_models, samples)
        errors.add(record(reference, audio, names), record(changed, audio, names))
    found = errors.errors()
    assert [error.name for error in found] == names
    for index, error in enumerate(found):
        if index == place:
            assert error.own == pytest.approx(0.5, abs=1e-5)
            assert error.propagated == error.interaction == 0
            assert error.total == error.own
            continue
        assert error.own == 0
        assert error.interaction == pytest.approx(0, abs=1e-6)
        assert error.total == pytest.approx(error.propagated)
        if index < place:
            assert error.propagated == 0
    assert found[-1].propagated > 1e-3


def test_interaction_is_what_neither_run_explains(small_models):
    """A unit that doubles what it gives, behind one whose output is doubled too: by vectors."""
    reference = small_models.small_model("transformer")
    changed = copy.deepcopy(reference)
    with torch.no_grad():
        for name in ("attention.out", "feed_forward.contract"):
            layer = changed.encoder.blocks[0].get_submodule(name)
            layer.weight.mul_(2)
            layer.bias.mul_(2)
    audio, name = waveform(small_models), "encoder.blocks.0.feed_forward"
    runs = [record(model, audio, [name]) for model in (reference, changed)]
    with torch.no_grad():
        rr = runs[0].outputs[name]
        qr = reference.get_submodule(name)(*runs[1].inputs[name])
    errors = UnitErrors(reference, changed)
    errors.units = {name: "feed_forward"}
    errors.add(*runs)
    [error] = errors.errors()
    # The unit itself doubles: y(r, q) = 2 y(r, r) and y(q, q) = 2 y(q, r), so the rest is y(q, r) − y(r, r).
    assert error.own == pytest.approx(1)
    expected = ((qr - rr).norm() / rr.norm()).item()
    assert error.propagated == pytest.approx(expected, rel=1e-5)
    assert error.interaction == pytest.approx(expected, rel=1e-5)


def test_hybrids(small_models, encoder):
    """All units of the quantized network in the reference, with its norms: then only these differ."""
    reference = small_models.small_model(encoder)
    other = copy.deepcopy(reference)
    units = find_units(other)
    with torch.no_grad():
        for name in units:
            for parameter in other.get_submodule(name).parameters():
                parameter.mul_(1.1)
    audio = waveform(small_models)
    before, expected = record(reference, audio), record(other, audio)
    kinds = list(dict.fromkeys(units.values()))
    with hybrid(reference, other, kinds) as mixed:
        assert torch.equal(record(mixed, audio).log_probs, expected.log_probs)
    assert torch.equal(record(reference, audio).log_probs, before.log_probs)
    with hybrid(reference, other, ["attention"]) as mixed:
        found = record(mixed, audio).log_probs
        modules = {name: mixed.get_submodule(name) for name in units}
    assert not torch.equal(found, expected.log_probs)
    assert not torch.equal(found, before.log_probs)
    for name, kind in units.items():
        assert (modules[name] is other.get_submodule(name)) == (kind == "attention")


def test_a_reference_is_whole_again_after_a_fault(small_models):
    reference, other = (small_models.small_model("transformer") for _ in range(2))
    own = reference.get_submodule("encoder.blocks.0.attention")
    with pytest.raises(KeyError), hybrid(reference, other, ["attention"]):
        raise KeyError
    assert reference.get_submodule("encoder.blocks.0.attention") is own


def test_subsets():
    assert subsets(["a", "b"]) == [("a",), ("b",), ("a", "b")]
    assert subsets(["a", "b", "c"]) == [
        *(("a",), ("b",), ("c",)),
        *(("a", "b"), ("a", "c"), ("b", "c")),
        ("a", "b", "c"),
    ]


def recording(layers=(), outputs=None) -> Recording:
    return Recording({}, outputs or {}, list(layers), torch.zeros(1, 2))


def test_noise_by_hand():
    """A tenth of the amplitude is 20 dB below; of two utterances the squares are added."""
    noise = LayerNoise()
    x = torch.tensor([[3.0, 4.0]])
    noise.add(recording([x, x]), recording([1.1 * x, x + torch.tensor([[0.0, 5.0]])]))
    assert noise.sqnr_db() == pytest.approx([20.0, 0.0], abs=1e-4)
    noise.add(recording([x, x]), recording([x, x]))
    assert noise.sqnr_db() == pytest.approx([23.0103, 3.0103], abs=1e-4)


def test_disturbance_by_hand():
    units = {"a": "attention", "b": "attention", "c": "feed_forward"}
    disturbance = Disturbance(units)
    x = {name: torch.ones(1, 2, 2) for name in units}
    y = {"a": 1.3 * x["a"], "b": 1.4 * x["b"], "c": x["c"]}
    disturbance.add(recording(outputs=x), recording(outputs=y))
    found = disturbance.relative()
    assert found["attention"] == pytest.approx((0.5 * (0.09 + 0.16)) ** 0.5)
    assert found["feed_forward"] == 0


def test_transcript_loss_by_hand():
    """Two frames, the token 1: paths 01, 10 and 11."""
    log_probs = torch.tensor([[0.25, 0.75], [0.5, 0.5]]).log()
    expected = -torch.tensor(0.25 * 0.5 + 0.75 * 0.5 + 0.75 * 0.5).log().item()
    assert transcript_loss(log_probs, torch.tensor([1])) == pytest.approx(expected)
    assert (
        transcript_loss(log_probs, torch.tensor([1, 1])) == 0
    )  # needs a blank between: three frames
