"""CMVN against numpy on the concatenated valid frames."""

import json
import struct

import numpy as np
import pytest
import torch

from espnet_lite.errors import InputError
from espnet_lite.features.cmvn import (
    CmvnAccumulator,
    GlobalCmvn,
    load_cmvn,
    save_cmvn,
    utterance_cmvn,
)

LENGTHS = torch.tensor([50, 1, 23, 0])


def padded_features():
    """Return features with NaN as padding, which nothing may read."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(4, 50, 5, generator=generator) * 3 + torch.arange(5.0) * 10
    for row, length in zip(features, LENGTHS.tolist(), strict=True):
        row[length:] = float("nan")
    return features


def valid_frames(features):
    return np.concatenate([f[:n].numpy() for f, n in zip(features, LENGTHS.tolist(), strict=True)])


def statistics():
    features = padded_features()
    accumulator = CmvnAccumulator(5)
    accumulator.add(features[:2], LENGTHS[:2])
    accumulator.add(features[2:], LENGTHS[2:])
    return accumulator.statistics()


def normalization(sums) -> GlobalCmvn:
    cmvn = GlobalCmvn(sums.total.numel())
    cmvn.set_statistics(sums)
    return cmvn


def test_statistics_count_valid_frames_only():
    frames = valid_frames(padded_features()).astype(np.float64)
    sums = statistics()
    assert sums.frames == 74
    np.testing.assert_allclose(sums.mean().numpy(), frames.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(sums.inverse_std().numpy(), 1 / frames.std(axis=0), rtol=1e-9)


def test_global_normalizes_valid_frames_and_zeroes_padding():
    features = padded_features()
    normalized = normalization(statistics())(features, LENGTHS)
    frames = valid_frames(normalized)
    np.testing.assert_allclose(frames.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(frames.std(axis=0), 1, atol=1e-5)
    for row, length in zip(normalized, LENGTHS.tolist(), strict=True):
        assert (row[length:] == 0).all()


def test_a_constant_dimension_stays_finite():
    sums = CmvnAccumulator(1).add(torch.full((1, 9, 1), -15.9), torch.tensor([9])).statistics()
    normalized = normalization(sums)(torch.full((1, 9, 1), -15.9), torch.tensor([9]))
    assert normalized.abs().max() < 1e-2


def test_global_travels_in_a_checkpoint():
    cmvn = normalization(statistics())
    restored = GlobalCmvn(5)
    restored.load_state_dict(cmvn.state_dict())
    assert torch.equal(restored.mean, cmvn.mean)
    assert torch.equal(restored.inverse_std, cmvn.inverse_std)


@pytest.mark.parametrize("normalize_variance", [True, False])
def test_utterance_equals_numpy(normalize_variance):
    features = padded_features()
    normalized = utterance_cmvn(features, LENGTHS, normalize_variance=normalize_variance)
    for row, source, length in zip(normalized, features, LENGTHS.tolist(), strict=True):
        assert (row[length:] == 0).all()
        if length < 2:
            assert (row == 0).all()
            continue
        frames = source[:length].numpy()
        expected = frames - frames.mean(axis=0)
        if normalize_variance:
            expected /= frames.std(axis=0)
        np.testing.assert_allclose(row[:length].numpy(), expected, atol=1e-4)


def test_save_and_load(tmp_path):
    path = tmp_path / "cmvn.safetensors"
    described = {"kind": "log_mel", "num_mels": 5, "sample_rate": 16000}
    save_cmvn(path, statistics(), described)
    sums, features = load_cmvn(path)
    assert features == described
    assert sums.frames == 74
    assert sums.total.dtype == torch.float64
    assert torch.equal(sums.total, statistics().total)
    assert torch.equal(sums.total_squares, statistics().total_squares)
    # The description is readable without us: safetensors' header is 8 bytes of length, then JSON.
    raw = path.read_bytes()
    header = json.loads(raw[8 : 8 + struct.unpack("<Q", raw[:8])[0]])
    assert header["__metadata__"]["frames"] == "74"


@pytest.mark.parametrize("content", [b"", b"not safetensors at all", b"\x02\0\0\0\0\0\0\0{}"])
def test_refuses_a_damaged_file(tmp_path, content):
    path = tmp_path / "cmvn.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"cmvn\.safetensors: not a file of CMVN statistics"):
        load_cmvn(path)


def test_refuses_no_file_no_frames_other_dimensions(tmp_path):
    with pytest.raises(InputError, match="no such file; make it again"):
        load_cmvn(tmp_path / "cmvn.safetensors")
    with pytest.raises(InputError, match="no frame to take CMVN statistics of"):
        CmvnAccumulator(5).add(torch.zeros(1, 3, 5), torch.tensor([0])).statistics()
    with pytest.raises(InputError, match="have 5 dimensions, the features 80"):
        GlobalCmvn(80).set_statistics(statistics())
