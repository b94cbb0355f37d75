"""k-means: against plain Lloyd in float64, against the best of all partitions, and at its edges."""

import itertools

import numpy as np
import pytest
import torch

from espnet_lite.errors import InputError
from espnet_lite.units import kmeans
from espnet_lite.units.kmeans import assign, fit_kmeans


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def blobs(count: int, *, dim: int = 5, centers: int = 12, seed: int = 0) -> torch.Tensor:
    generator = seeded(seed)
    means = 6 * torch.randn(centers, dim, generator=generator)
    which = torch.randint(centers, (count,), generator=generator)
    return means[which] + torch.randn(count, dim, generator=generator)


def plain_distances(frames, centroids) -> np.ndarray:
    x, c = frames.double().numpy(), centroids.double().numpy()
    return ((x[:, None] - c[None]) ** 2).sum(axis=2)


def plain_lloyd(frames, centroids, *, tolerance: float) -> tuple[np.ndarray, list[float]]:
    """Return centroids and mean inertia before each step, in float64, for clusters never empty."""
    x, c = frames.double().numpy(), centroids.double().numpy()
    inertias: list[float] = []
    for _ in range(100):
        distances = ((x[:, None] - c[None]) ** 2).sum(axis=2)
        inertias.append(distances.min(axis=1).mean())
        if len(inertias) > 1 and inertias[-2] - inertias[-1] <= tolerance * inertias[-2]:
            return c, inertias
        labels = distances.argmin(axis=1)
        c = np.stack([x[labels == j].mean(axis=0) for j in range(len(c))])
    raise AssertionError("it does not end")


def test_assign_against_float64():
    frames, centroids = blobs(3000, dim=7), blobs(40, dim=7, seed=1)
    labels, distances = assign(frames, centroids)
    expected = plain_distances(frames, centroids)
    np.testing.assert_array_equal(labels, expected.argmin(axis=1))
    np.testing.assert_allclose(distances, expected.min(axis=1), rtol=1e-5, atol=1e-5)


def test_far_from_zero_nothing_is_lost():
    """|x|² - 2xc + |c|² of numbers near 1000 would leave no digit of distances near 1 in float32."""
    frames = blobs(2000, dim=39)
    labels, distances = assign(frames, frames[:50])
    far_labels, far = assign(frames + 4096.0, frames[:50] + 4096.0)
    # What float32 itself loses in adding 4096 is 2^-12 of each number.
    np.testing.assert_allclose(far, distances, rtol=2e-2, atol=1e-3)
    assert (far_labels == labels).float().mean() > 0.999


def test_chunks_do_not_matter(monkeypatch):
    frames, centroids = blobs(3000), blobs(30, seed=1)
    labels, distances = assign(frames, centroids)
    monkeypatch.setattr(kmeans, "_CPU_CHUNK_SCORES", 1)  # 256 frames
    chunked = assign(frames, centroids)
    assert torch.equal(chunked[0], labels)
    torch.testing.assert_close(chunked[1], distances)


def test_of_centroids_as_near_the_first():
    centroids = torch.tensor([[1.0], [-1.0], [1.0]])
    assert assign(torch.tensor([[0.0], [2.0], [-2.0]]), centroids)[0].tolist() == [0, 0, 1]


def test_no_frames_get_no_labels():
    labels, distances = assign(torch.zeros(0, 3), torch.zeros(2, 3))
    assert labels.shape == distances.shape == (0,) and labels.dtype == torch.int64


def test_lloyd_against_plain_lloyd():
    frames = blobs(4000)
    start = frames[:12].clone()
    tolerance = 1.0e-3
    expected, inertias = plain_lloyd(frames, start, tolerance=tolerance)
    shift = frames.mean(dim=0)
    part = kmeans._Part(frames, shift)
    centroids, inertia, passes = kmeans._lloyd(part, start - shift, tolerance=tolerance)
    assert passes == len(inertias) > 3
    assert inertia == pytest.approx(inertias[-1], rel=1e-6)
    np.testing.assert_allclose(centroids + shift, expected, atol=1e-5)


def test_the_best_partition_of_a_tiny_set():
    """Of all 2^8 ways to part nine frames in two the one of the least inertia."""
    frames = torch.tensor([0.0, 0.5, 1, 1.2, 2, 7, 8, 8.5, 11])[:, None]
    x = frames[:, 0].double().numpy()

    def inertia(labels) -> float:
        parts = [x[np.array(labels) == j] for j in (0, 1)]
        return sum(((part - part.mean()) ** 2).sum() for part in parts if len(part)) / len(x)

    best = min(inertia((0, *rest)) for rest in itertools.product((0, 1), repeat=8))
    for seed in range(5):
        fitted = fit_kmeans(frames, clusters=2, generator=seeded(seed))
        assert fitted.inertia == pytest.approx(best, rel=1e-6)


def test_inertia_is_that_of_the_centroids():
    frames = blobs(20_000, centers=30)  # parts: 5,000 would be below the first size, so one
    fitted = fit_kmeans(frames, clusters=25, generator=seeded())
    assert fitted.inertia == pytest.approx(
        float(plain_distances(frames, fitted.centroids).min(axis=1).mean()), rel=1e-5
    )


def test_growing_parts_find_what_all_frames_would(monkeypatch):
    """No worse than plain Lloyd on all frames from the same first centroids."""
    monkeypatch.setattr(kmeans, "_FIRST_FRAMES", 500)
    assert kmeans._sizes(576, 30_000) == [1875, 7500, 30_000]
    frames = blobs(30_000, centers=40)
    fitted = fit_kmeans(frames, clusters=12, generator=seeded())
    drawn = kmeans._drawn(frames, 576, generator := seeded())
    seeds = frames[drawn] - frames.mean(dim=0)
    start = kmeans._plus_plus(seeds, clusters=12, generator=generator)
    _, inertias = plain_lloyd(frames, start + frames.mean(dim=0), tolerance=1e-3)
    assert fitted.inertia < 1.03 * inertias[-1]


def test_the_order_of_frames_with_a_period(monkeypatch):
    """A part of every fourth frame would meet a quarter of the blobs only."""
    monkeypatch.setattr(kmeans, "_FIRST_FRAMES", 64)
    means = torch.arange(16).float()[:, None] * 100
    frames = means.repeat(1024, 1) + torch.randn(16 * 1024, 1, generator=seeded())
    assert fit_kmeans(frames, clusters=16, generator=seeded(1)).inertia == pytest.approx(
        1.0, rel=0.05
    )


def test_the_seed_decides():
    frames = blobs(5000)
    fits = [fit_kmeans(frames, clusters=40, generator=seeded(seed)) for seed in (3, 3, 4)]
    assert torch.equal(fits[0].centroids, fits[1].centroids)
    assert fits[0].inertia == fits[1].inertia
    assert not torch.equal(fits[0].centroids, fits[2].centroids)


def test_plus_plus_takes_a_frame_of_every_blob():
    """Blobs 1e4 apart: any frame of a blob that has no centroid yet outweighs all others."""
    frames = torch.cat([torch.randn(50, 2, generator=seeded(i)) + 1e4 * i for i in range(8)])
    centroids = kmeans._plus_plus(frames - frames.mean(dim=0), clusters=8, generator=seeded(1))
    blobs_met = ((centroids + frames.mean(dim=0))[:, 0] / 1e4).round()
    assert sorted(blobs_met.tolist()) == list(range(8))
    for centroid in centroids:
        assert (frames - frames.mean(dim=0) == centroid).all(dim=1).any()


def test_plus_plus_draws_by_squared_distance(monkeypatch):
    """With one candidate each: from 0, the frame at 3 is drawn nine times as often as that at 1."""
    monkeypatch.setattr(kmeans.math, "log", lambda clusters: -1)
    frames = torch.tensor([[0.0], [1.0], [3.0]])
    drawn = {1.0: 0, 3.0: 0}
    generator = seeded()
    while sum(drawn.values()) < 400:
        first, second = kmeans._plus_plus(frames, clusters=2, generator=generator)[:, 0].tolist()
        if first == 0.0:
            drawn[second] += 1
    assert drawn[3.0] / 400 == pytest.approx(0.9, abs=0.045)  # three standard deviations


def test_greedy_takes_the_best_candidate(monkeypatch):
    """With many candidates all are met, and the one that leaves the least inertia wins."""
    monkeypatch.setattr(kmeans.math, "log", lambda clusters: 200)
    frames = torch.tensor([[0.0], [10.0], [11.0], [12.0], [30.0]])
    for seed in range(10):
        first, second = kmeans._plus_plus(frames, clusters=2, generator=seeded(seed))[:, 0].tolist()
        left = {
            x: sum(min((y - first) ** 2, (y - x) ** 2) for y in frames[:, 0].tolist())
            for x in frames[:, 0].tolist()
        }
        assert left[second] == min(left.values())


def test_empty_clusters_go_to_the_farthest_frames():
    frames = torch.tensor([[0.0], [1.0], [2.0], [50.0], [90.0]])
    part = kmeans._Part(frames, torch.zeros(1))
    # The last two have no frame.
    start = torch.tensor([[1.0], [1000.0], [-1000.0]])
    following, inertia, moved = kmeans._step(part, start)
    assert moved
    assert following[1:, 0].tolist() == [90.0, 50.0]
    assert following[0, 0] == pytest.approx(143 / 5)
    assert inertia == pytest.approx((1 + 0 + 1 + 49**2 + 89**2) / 5)
    centroids, _, _ = kmeans._lloyd(part, start, tolerance=1e-6)
    assert sorted(centroids[:, 0].tolist()) == [1.0, 50.0, 90.0]


def test_as_many_clusters_as_frames():
    frames = blobs(20)
    fitted = fit_kmeans(frames, clusters=20, generator=seeded())
    assert fitted.inertia == pytest.approx(0.0, abs=1e-4)  # of frames of |x|² about 200
    assert sorted(assign(frames, fitted.centroids)[0].tolist()) == list(range(20))


@pytest.mark.parametrize("value", [0.0, 3.25])
def test_silence(value):
    """Frames that are all alike: fewer different ones than clusters, and no NaN."""
    fitted = fit_kmeans(torch.full((300, 4), value), clusters=10, generator=seeded())
    assert fitted.inertia == 0.0
    torch.testing.assert_close(fitted.centroids, torch.full((10, 4), value))


def test_a_few_different_frames():
    frames = torch.tensor([[0.0], [5.0], [9.0]]).repeat(200, 1)
    fitted = fit_kmeans(frames, clusters=10, generator=seeded())
    assert fitted.inertia == pytest.approx(0.0, abs=1e-9)
    assert len(set(assign(frames, fitted.centroids)[0].tolist())) == 3


def test_more_clusters_than_frames():
    with pytest.raises(InputError, match=r"^7 frames for 8 clusters"):
        fit_kmeans(torch.zeros(7, 2), clusters=8, generator=seeded())
    with pytest.raises(InputError, match="0 clusters"):
        fit_kmeans(torch.zeros(7, 2), clusters=0, generator=seeded())


def test_frames_stay_as_they_are():
    frames = blobs(9000)
    before = frames.clone()
    fit_kmeans(frames, clusters=5, generator=seeded())
    assert torch.equal(frames, before)


def test_fast_matmul_of_a_program_changes_nothing(global_state_is_put_back):
    frames, centroids = blobs(2000, dim=39), blobs(100, dim=39, seed=1)
    labels, distances = assign(frames, centroids)
    torch.set_float32_matmul_precision("medium")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        again = assign(frames, centroids)
    assert torch.equal(again[0], labels) and torch.equal(again[1], distances)
    assert torch.get_float32_matmul_precision() == "medium"
