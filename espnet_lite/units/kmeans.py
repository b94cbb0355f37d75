"""k-means of frames that lie in memory: greedy k-means++, then Lloyd's iterations on growing parts.

Where the usual mini-batch k-means takes small steps along noisy means, exact iterations run here on a
random part of the frames that quadruples whenever it has settled. Each frame then is looked at a few
times only, and the result is one of Lloyd's algorithm, so its inertia is no higher.

Sources: k-means++ and its greedy variant, Arthur & Vassilvitskii 2007; growing batches, Newling & Fleuret
2016 (nested mini-batch k-means).
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from espnet_lite.errors import InputError
from espnet_lite.features.fbank import exact_float32_matmul

# Frames × clusters of one product on a CPU: 2 MB of scores stay in the cache for the argmin.
_CPU_CHUNK_SCORES = 1 << 19
_GPU_CHUNK_SCORES = 1 << 25
# k-means++, whose cost grows with k², draws the first centroids from so many frames a cluster.
_FIRST_FRAMES_PER_CLUSTER = 48
_FIRST_FRAMES = 8192  # at least
_GROWTH = 4  # of the parts
# A part has settled when an iteration lowers the inertia by less than this. A larger part follows
# anyhow, and the mean of m frames is off by 1/m of a cluster's inertia.
_TOLERANCE = 2.0e-3
_LAST_TOLERANCE = 1.0e-3  # with all frames
_MAX_ITERATIONS = 100  # of one part


@dataclass(frozen=True)
class KMeans:
    """A fitted k-means.

    Attributes:
        centroids: float32, shape [clusters, dim].
        inertia: mean over the frames of the squared distance to the nearest centroid.
        iterations: passes over the frames that were needed, parts counted as parts.
    """

    centroids: Float[Tensor, "clusters dim"]
    inertia: float
    iterations: float


@torch.no_grad()
def fit_kmeans(
    frames: Float[Tensor, "n dim"], *, clusters: int, generator: torch.Generator
) -> KMeans:
    """Return centroids of `frames`, the same for the same frames and state of `generator`.

    Args:
        frames: float32, on a CPU or a GPU; not changed, not copied as a whole.
        clusters: how many centroids.
        generator: of the CPU; draws the first centroids and the parts.

    Raises:
        InputError: fewer frames than clusters.
    """
    count = frames.size(0)
    if clusters < 1:
        raise InputError(f"{clusters} clusters, expected 1 or more")
    if count < clusters:
        raise InputError(
            f"{count} frames for {clusters} clusters, expected at least one frame a cluster",
            fix="give more speech, or fewer clusters",
        )
    with exact_float32_matmul(), torch.autocast(frames.device.type, enabled=False):
        # Distances are differences of large numbers where frames lie far from 0.
        shift = _mean(frames)
        first = min(count, max(_FIRST_FRAMES, _FIRST_FRAMES_PER_CLUSTER * clusters))
        seeds = _Part(frames, shift, _drawn(frames, first, generator)).rows(slice(None))
        centroids = _plus_plus(seeds, clusters=clusters, generator=generator)
        passes = 0.0
        for size in _sizes(first, count):
            is_last = size == count
            part = _Part(frames, shift, _drawn(frames, size, generator))
            centroids, inertia, iterations = _lloyd(
                part, centroids, tolerance=_LAST_TOLERANCE if is_last else _TOLERANCE
            )
            passes += iterations * size / count
        return KMeans(centroids + shift, inertia, passes)


@torch.no_grad()
def assign(
    frames: Float[Tensor, "n dim"], centroids: Float[Tensor, "clusters dim"]
) -> tuple[Int[Tensor, "n"], Float[Tensor, "n"]]:
    """Return the nearest centroid of each frame, int64, and the squared distance to it, float32.

    Of centroids as near, the first one.
    """
    with exact_float32_matmul(), torch.autocast(frames.device.type, enabled=False):
        shift = _mean(centroids)
        part = _Part(frames, shift)
        labels = torch.empty(part.count, dtype=torch.int64, device=frames.device)
        distances = torch.empty(part.count, dtype=torch.float32, device=frames.device)
        for rows, _, nearest, distance in part.nearest(centroids.float() - shift):
            labels[rows] = nearest
            distances[rows] = distance
    return labels, distances


class _Part:
    """Some of the frames, gone through in chunks, around a point near their middle."""

    def __init__(
        self,
        frames: Float[Tensor, "n dim"],
        shift: Float[Tensor, "dim"],
        index: Int[Tensor, "size"] | None = None,
    ):
        """Hold frames.

        Args:
            frames: not copied.
            shift: taken from each frame.
            index: which frames; None for all.
        """
        self._frames = frames
        self._shift = shift
        self._index = index
        self.count = frames.size(0) if index is None else index.size(0)

    def rows(self, which: slice | Int[Tensor, "rows"]) -> Float[Tensor, "rows dim"]:
        """Return these frames of the part around the shift."""
        return self._frames[which if self._index is None else self._index[which]] - self._shift

    def nearest(self, centroids: Float[Tensor, "clusters dim"]):
        """Yield (rows, frames around the shift, nearest centroid, squared distance) of each chunk."""
        on_cpu = self._frames.device.type == "cpu"
        scores = _CPU_CHUNK_SCORES if on_cpu else _GPU_CHUNK_SCORES
        chunk = max(256, scores // centroids.size(0))
        half_norms = centroids.square().sum(dim=1) / 2
        for start in range(0, self.count, chunk):
            rows = slice(start, min(start + chunk, self.count))
            x = self.rows(rows)
            # |x - c|² / 2 without |x|² / 2, which is the same for all centroids.
            score = torch.addmm(half_norms, x, centroids.t(), alpha=-1)
            # numpy's argmin is five times as fast as torch's on a CPU.
            index = (
                torch.from_numpy(score.numpy().argmin(axis=1)) if on_cpu else score.argmin(dim=1)
            )
            least = score.gather(1, index[:, None])[:, 0]
            distance = torch.add(x.square().sum(dim=1), least, alpha=2).clamp_min_(0.0)
            yield rows, x, index, distance


def _lloyd(
    part: _Part, centroids: Float[Tensor, "clusters dim"], *, tolerance: float
) -> tuple[Float[Tensor, "clusters dim"], float, int]:
    """Return centroids after Lloyd's iterations, their mean inertia and the passes it took."""
    following, inertia, moved = _step(part, centroids)
    passes = 1
    while passes < _MAX_ITERATIONS:
        last, centroids = inertia, following
        following, inertia, moved = _step(part, centroids)
        passes += 1
        if not moved and last - inertia <= tolerance * last:
            break
    # The centroids that the inertia was measured with, not those that follow.
    return centroids, inertia, passes


def _step(
    part: _Part, centroids: Float[Tensor, "clusters dim"]
) -> tuple[Float[Tensor, "clusters dim"], float, bool]:
    """Return the means of the frames of each centroid, the mean inertia and if any was empty.

    The centroids of empty clusters go to the frames that are farthest from theirs.
    """
    clusters, dim = centroids.shape
    device = centroids.device
    sums = torch.zeros(clusters, dim, dtype=torch.float64, device=device)
    counts = torch.zeros(clusters, dtype=torch.float64, device=device)
    distances = torch.empty(part.count, dtype=torch.float32, device=device)
    total = torch.zeros((), dtype=torch.float64, device=device)
    for rows, x, labels, distance in part.nearest(centroids):
        sums += _sums(x, labels, clusters)
        counts += torch.bincount(labels, minlength=clusters)
        distances[rows] = distance
        total += distance.sum(dtype=torch.float64)
    following = (sums / counts.clamp_min(1.0)[:, None]).float()
    empty = (counts == 0).nonzero()[:, 0]
    moved = False
    if empty.numel():
        farthest = distances.topk(empty.numel())
        # Frames that all lie on centroids: there are fewer different ones than clusters.
        moved = bool(farthest.values[0] > 0)
        following[empty] = part.rows(farthest.indices)
    return following, float(total) / part.count, moved


def _sums(
    x: Float[Tensor, "n dim"], labels: Int[Tensor, "n"], clusters: int
) -> Float[Tensor, "clusters dim"]:
    """Return the sum of the frames of each cluster; in the same order of additions every time."""
    if x.device.type == "cpu":
        return x.new_zeros(clusters, x.size(1)).index_add_(0, labels, x)
    one_hot = torch.nn.functional.one_hot(labels, clusters).to(x.dtype)
    return one_hot.t() @ x


def _mean(frames: Float[Tensor, "n dim"]) -> Float[Tensor, "dim"]:
    """Return the mean frame."""
    total = torch.zeros(frames.size(1), dtype=torch.float64, device=frames.device)
    for chunk in frames.split(1 << 16):
        total += chunk.sum(dim=0, dtype=torch.float64)
    return (total / max(1, frames.size(0))).float()


def _sizes(first: int, count: int) -> list[int]:
    """Return the sizes of the parts: `count` and its quarters that are not below `first`, upwards."""
    sizes = [count]
    while sizes[0] // _GROWTH >= first:
        sizes.insert(0, sizes[0] // _GROWTH)
    return sizes


def _drawn(
    frames: Float[Tensor, "n dim"], size: int, generator: torch.Generator
) -> Int[Tensor, "size"] | None:
    """Return random frames: one of each of `size` stretches, so all of the corpus has a say.

    None for all of them.
    """
    if size == frames.size(0):
        return None
    edges = torch.arange(size + 1, dtype=torch.int64) * frames.size(0) // size
    place = torch.rand(size, dtype=torch.float64, generator=generator)
    return (edges[:-1] + (place * edges.diff()).long()).to(frames.device)


def _plus_plus(
    frames: Float[Tensor, "n dim"], *, clusters: int, generator: torch.Generator
) -> Float[Tensor, "clusters dim"]:
    """Return the first centroids: frames drawn by their squared distance to those chosen before.

    Greedy: of 2 + ln k candidates the one that leaves the least inertia is taken.
    """
    trials = 2 + int(math.log(clusters))
    norms = frames.square().sum(dim=1)
    centroids = frames.new_empty(clusters, frames.size(1))
    first = int(torch.randint(frames.size(0), (1,), generator=generator))
    centroids[0] = frames[first]
    closest = (frames - frames[first]).square().sum(dim=1)
    for number in range(1, clusters):
        ends = closest.double().cumsum(dim=0)
        drawn = torch.rand(trials, dtype=torch.float64, generator=generator).to(frames.device)
        candidates = torch.searchsorted(ends, drawn * ends[-1], right=True)
        candidates = candidates.clamp_max(frames.size(0) - 1)
        points = frames[candidates]
        # One row for each candidate: the distances that it would leave.
        distances = torch.addmm(norms, points, frames.t(), alpha=-2)
        distances += points.square().sum(dim=1, keepdim=True)
        left = torch.minimum(distances.clamp_min_(0.0), closest)
        best = left.sum(dim=1, dtype=torch.float64).argmin()
        closest = left[best]
        closest[candidates[best]] = 0.0  # exactly: it is not drawn again
        centroids[number] = points[best]
    return centroids
