"""Units of a corpus: joins data, features or a model, k-means and the unit store.

Two passes over the audio, none of which puts a feature on disk: one draws a sample of frames, to which
centroids are fitted; one gives every frame its nearest centroid. `<output>.shards/` holds meanwhile

    key.json                       what the results belong to: data, features, clusters, seed
    centroids.KEY.safetensors      the fitted centroids; KEY: digest of key.json
    shard.KEY.NUMBER.safetensors   the labels of every n-th batch, n = number of shards
    job.J.log                      what process J printed

so that a run that was killed goes on where it stopped.
"""

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy
import torch
from jaxtyping import Float
from torch import Tensor

from espnet_lite.data.loader import Loader
from espnet_lite.data.utterance import Batch, Utterance
from espnet_lite.data.utterance_table import UtteranceTable
from espnet_lite.decode import shards
from espnet_lite.errors import InputError
from espnet_lite.features.frame_grid import FrameGrid
from espnet_lite.files import atomic_path
from espnet_lite.jobs.failure import Failure
from espnet_lite.locks import folder_lock
from espnet_lite.nn.masks import valid_mask
from espnet_lite.runtime.format import file_sha256
from espnet_lite.tasks.hubert import load_pretrained
from espnet_lite.tasks.training import read_sets
from espnet_lite.units.features import (
    LayerUnitFeatures,
    MfccUnitFeatures,
    UnitFeatures,
    WithoutUtteranceMean,
)
from espnet_lite.units.kmeans import assign, fit_kmeans
from espnet_lite.units.quality import count_segments
from espnet_lite.units.reservoir import Reservoir
from espnet_lite.units.store import (
    MOST_CLUSTERS,
    UnitStore,
    centroid_bytes,
    read_centroids,
    write_store,
)

BATCH_SECONDS = 200.0
# A kill costs at most what the processes had of a shard each; a shard is long enough to read ahead in.
_MOST_SHARDS = 256


@dataclass(frozen=True)
class UnitOptions:
    """What the units are and of what.

    Attributes:
        data_dirs: dump folders; the centroids are fitted to their frames.
        label_dirs: further ones that get units of these centroids.
        model: experiment folder of a pre-training; None for MFCCs.
        layer: of the model; 0 is the encoder's input. Only with a model.
        subtract_mean: take away each utterance's mean of the features.
        clusters: number of units.
        sample_megabytes: memory for the frames that are clustered, in 10⁶ bytes.
        sample_hours: of speech that these frames are drawn from, whole utterances drawn at random.
        sample_rate: of the audio, in Hz; a model has its own.
        seed: of all draws.
    """

    data_dirs: tuple[Path, ...]
    label_dirs: tuple[Path, ...]
    model: Path | None
    layer: int | None
    subtract_mean: bool
    clusters: int
    sample_megabytes: float
    sample_hours: float
    sample_rate: int
    seed: int

    def __post_init__(self):
        if not 1 <= self.clusters <= MOST_CLUSTERS:
            raise InputError(
                f"{self.clusters} clusters, expected 1 to {MOST_CLUSTERS}", where="--clusters"
            )
        for name in ("sample_megabytes", "sample_hours"):
            value = vars(self)[name]
            if not value > 0:
                raise InputError(f"{value:g}, expected a number above 0", where=f"--{name}")
        if self.seed < 0:
            raise InputError(f"{self.seed}, expected 0 or more", where="--seed")
        if self.model is None and self.layer is not None:
            raise InputError("a layer of no model", where="--layer", fix="give --model EXPDIR")
        if self.model is not None and self.layer is None:
            raise InputError("no layer of the model chosen", where="--model", fix="give --layer N")


@dataclass(frozen=True)
class _Job:
    """The same in every process: utterances, features, and where results go."""

    options: UnitOptions
    to_fit: UtteranceTable
    utterances: UtteranceTable
    features: UnitFeatures
    folder: Path
    device: torch.device

    def loader(self, utterances: Sequence[Utterance]) -> Loader:
        return Loader(
            utterances,
            None,
            sample_rate=self.features.grid.sample_rate,
            batch_seconds=BATCH_SECONDS,
            seed=0,
            shuffle=False,
            cache_gigabytes=0,  # each utterance is read once
            prefetch_batches=2,
        )

    def frames(self, batch: Batch) -> tuple[Float[Tensor, "n dim"], np.ndarray]:
        """Return the valid frames of a batch, one utterance after the other, and the count of each."""
        features, lengths = self.features(
            batch.waveform.to(self.device), batch.waveform_lengths.to(self.device)
        )
        expected = self.features.grid.num_frames(batch.waveform_lengths)
        if not torch.equal(lengths.cpu(), expected):
            raise ValueError(f"frames {lengths.tolist()}, the grid has {expected.tolist()}")
        frames = features[valid_mask(lengths, features.size(1))]
        if not torch.isfinite(frames).all():
            raise InputError(
                "features are not finite",
                where=f"one of the utterances {', '.join(batch.ids[:5])}, …",
                fix="is the model's training diverged? else look at the audio",
            )
        return frames, expected.numpy()


def make_units(
    options: UnitOptions,
    *,
    output: Path,
    device: torch.device,
    start_jobs: Callable[[Path, str, bool], Failure | None] | None = None,
    fits_in_job: bool = False,
    report: Callable[[str], None] = print,
) -> UnitStore | Failure:
    """Fit centroids, give every frame its unit, write the store to `output` and return it.

    Args:
        options: which units.
        output: folder to write; replaced only when the new units are whole.
        device: for features and distances.
        start_jobs: called as (folder, digest, fit) to do the second pass in processes that call
            `label_share`, and with `fit` the first one before in one that calls `fit_centroids`;
            None does both here.
        fits_in_job: leave the first pass to `start_jobs`, too.
        report: gets a line for each step.

    Raises:
        InputError: anything the user can mend, each with its file, utterance or option.
    """
    folder = shards.shards_folder(output)
    with folder_lock(folder):
        job = _prepare(options, folder, device)
        digest = shards.prepare(folder, _key(job))
        path = _centroids_path(folder, digest)
        unfitted = not path.is_file()
        if not unfitted:
            report(f"{path}: centroids of a run that was cut off")
        elif not fits_in_job:
            _write_centroids(job, digest, report)
        if start_jobs is None:
            _label(job, digest, first=0, step=1)
        else:
            failure = start_jobs(folder, digest, unfitted and fits_in_job)
            if failure is not None:
                return failure
        store = _merge(job, digest, output)
        shards.remove(folder)
    return store


def fit_centroids(
    options: UnitOptions,
    *,
    output: Path,
    device: torch.device,
    digest: str,
    report: Callable[[str], None] = print,
) -> None:
    """Do the first pass: draw the sample, fit the centroids, write them for `label_share`."""
    prepared = _prepare(options, shards.shards_folder(output), device)
    _write_centroids(prepared, digest, report)


def _write_centroids(job: _Job, digest: str, report: Callable[[str], None]) -> None:
    content = _fit(job, report)
    with atomic_path(_centroids_path(job.folder, digest)) as temporary:
        temporary.write_bytes(content)


def label_share(
    options: UnitOptions,
    *,
    output: Path,
    device: torch.device,
    digest: str,
    job: int,
    jobs: int,
    is_wanted: Callable[[], bool],
) -> None:
    """Label every `jobs`-th shard that is not done yet, from shard `job` - 1 on.

    Ends when `is_wanted` says no.
    """
    prepared = _prepare(options, shards.shards_folder(output), device)
    _label(prepared, digest, first=job - 1, step=jobs, is_wanted=is_wanted)


def _prepare(options: UnitOptions, folder: Path, device: torch.device) -> _Job:
    to_fit = read_sets(list(options.data_dirs), need_text=False)
    utterances = read_sets([*options.data_dirs, *options.label_dirs], need_text=False)
    return _Job(options, to_fit, utterances, _features(options, device), folder, device)


def _features(options: UnitOptions, device: torch.device) -> UnitFeatures:
    features = _frames_to_cluster(options, device)
    return WithoutUtteranceMean(features) if options.subtract_mean else features


def _frames_to_cluster(options: UnitOptions, device: torch.device) -> UnitFeatures:
    if options.model is None:
        return MfccUnitFeatures(options.sample_rate).to(device)
    model = load_pretrained(options.model).to(device).eval()
    weights = options.model / "model.safetensors" if options.model.is_dir() else options.model
    return LayerUnitFeatures(
        model.encode,
        layer=options.layer,
        grid=model.front_end.grid,
        device=device,
        description={"model": options.model.name, "model_sha256": file_sha256(weights)},
    )


def _key(job: _Job) -> dict:
    """Return all that the labels depend on; an utterance's audio by its entry and its length.

    Raises:
        InputError: an utterance that stands in two of the folders.
    """
    digest = hashlib.sha256(f"{len(job.to_fit)}\n".encode())  # the first ones are fitted to
    met: set[str] = set()
    for utterance in job.utterances:
        if utterance.id in met:
            raise InputError(
                f"utterance '{utterance.id}' stands in two of the folders",
                where="--data_dirs and --label_dirs",
                fix="give each utterance once",
            )
        met.add(utterance.id)
        part = (utterance.audio, utterance.start_seconds, utterance.end_seconds)
        digest.update(repr((utterance.id, *part, utterance.num_samples)).encode("utf-8"))
    return {
        "utterances_sha256": digest.hexdigest(),
        "features": job.features.description,
        "grid": vars(job.features.grid),
        "clusters": job.options.clusters,
        "sample_megabytes": job.options.sample_megabytes,
        "sample_hours": job.options.sample_hours,
        "seed": job.options.seed,
    }


def _fit(job: _Job, report: Callable[[str], None]) -> bytes:
    """Return a file of centroids, with what they were fitted to in its metadata."""
    options, grid, dim = job.options, job.features.grid, job.features.dim
    generator = torch.Generator().manual_seed(options.seed)
    loader = job.loader(_drawn(job, generator))
    available = int(grid.num_frames(loader.num_samples).sum())
    room = int(options.sample_megabytes * 1e6 / (4 * dim))
    if room < options.clusters <= available:
        raise InputError(
            f"{options.sample_megabytes:g} MB hold {room} frames of {dim} numbers, too few for "
            f"{options.clusters} clusters",
            where="--sample_megabytes",
        )
    reservoir = Reservoir(max(1, min(room, available)), dim=dim, generator=generator)
    started = time.perf_counter()
    for batch in loader.batches(0):
        reservoir.add(job.frames(batch)[0])
    sample = reservoir.sample()
    drawn = time.perf_counter()
    fitted = fit_kmeans(sample.to(job.device), clusters=options.clusters, generator=generator)
    report(
        f"{options.clusters} centroids of {len(sample):,} of {reservoir.seen:,} frames: inertia "
        f"{fitted.inertia:.4g} a frame; {drawn - started:.1f} s for the sample, "
        f"{time.perf_counter() - drawn:.1f} s for k-means"
    )
    metadata = {"sample_frames": str(len(sample)), "sample_inertia": repr(fitted.inertia)}
    return centroid_bytes(fitted.centroids, metadata)


def _drawn(job: _Job, generator: torch.Generator) -> Sequence[Utterance]:
    """Return the utterances that the sample is drawn from."""
    utterances = job.to_fit
    loader = job.loader(utterances)
    wanted = job.options.sample_hours * 3600 * job.features.grid.sample_rate
    if loader.num_samples.sum() <= wanted:
        return utterances
    order = torch.randperm(len(utterances), generator=generator).numpy()
    count = 1 + int(np.searchsorted(np.cumsum(loader.num_samples[order]), wanted))
    return [utterances[position] for position in np.sort(order[:count]).tolist()]


def _centroids_path(folder: Path, digest: str) -> Path:
    return folder / f"centroids.{digest}.safetensors"


def _shard_path(folder: Path, digest: str, number: int) -> Path:
    return folder / f"shard.{digest}.{number}.safetensors"


def _num_shards(loader: Loader) -> int:
    return min(_MOST_SHARDS, loader.num_batches(0))


@torch.inference_mode()
def _label(
    job: _Job, digest: str, *, first: int, step: int, is_wanted: Callable[[], bool] = lambda: True
) -> None:
    """Write the shards at first, first + step, … that are not there."""
    loader = job.loader(job.utterances)
    count = _num_shards(loader)
    centroids = read_centroids(_centroids_path(job.folder, digest)).to(job.device)
    for number in range(first, count, step):
        path = _shard_path(job.folder, digest, number)
        if path.is_file():
            continue
        ids, samples, frames, labels, inertia = [], [], [], [], 0.0
        for batch in loader.batches(0, start=number, step=count):
            if not is_wanted():
                return
            x, counts = job.frames(batch)
            nearest, distances = assign(x, centroids)
            ids += batch.ids
            samples.append(batch.waveform_lengths.numpy())
            frames.append(counts)
            labels.append(nearest.to("cpu", torch.int16).numpy())
            inertia += float(distances.sum(dtype=torch.float64))
        content = safetensors.numpy.save(
            {
                "ids": np.frombuffer("\n".join(ids).encode("utf-8"), dtype=np.uint8),
                "num_samples": np.concatenate(samples),
                "num_frames": np.concatenate(frames),
                "units": np.concatenate(labels),
                "inertia": np.array([inertia]),
            }
        )
        with atomic_path(path) as temporary:
            temporary.write_bytes(content)


class _Shards:
    """The finished shards, read one at a time, as often as asked for."""

    def __init__(self, job: _Job, digest: str):
        count = _num_shards(job.loader(job.utterances))
        self._paths = [_shard_path(job.folder, digest, number) for number in range(count)]

    def tensors(self) -> Iterator[dict[str, np.ndarray]]:
        for path in self._paths:
            yield safetensors.numpy.load(path.read_bytes())

    def __iter__(self) -> Iterator[tuple[list[bytes], np.ndarray, np.ndarray, np.ndarray]]:
        for part in self.tensors():
            ids = part["ids"].tobytes().split(b"\n")
            yield ids, part["num_samples"], part["num_frames"], part["units"]


def _merge(job: _Job, digest: str, output: Path) -> UnitStore:
    """Write the store from the shards."""
    path = _centroids_path(job.folder, digest)
    centroids = read_centroids(path)
    with safetensors.safe_open(path, framework="np") as file:
        metadata = file.metadata()
    parts = _Shards(job, digest)
    quality = _quality(parts, clusters=job.options.clusters, grid=job.features.grid)
    options = job.options
    description = {
        "features": job.features.description,
        "fit": {
            "frames": int(metadata["sample_frames"]),
            "inertia_per_frame": float(metadata["sample_inertia"]),
            "sample_megabytes": options.sample_megabytes,
            "sample_hours": options.sample_hours,
            "seed": options.seed,
        },
        "quality": quality,
    }
    return write_store(
        output, parts, centroids=centroids, grid=job.features.grid, description=description
    )


def _quality(parts: _Shards, *, clusters: int, grid: FrameGrid) -> dict:
    """Return what can be told of units without knowing what was said."""
    counts = np.zeros(clusters, dtype=np.int64)
    utterances = segments = frames = 0
    inertia = 0.0
    for part in parts.tensors():
        counts += np.bincount(part["units"], minlength=clusters)
        utterances += len(part["num_frames"])
        frames += len(part["units"])
        segments += count_segments(part["units"], part["num_frames"])
        inertia += float(part["inertia"][0])
    return {
        "utterances": utterances,
        "frames": frames,
        "inertia_per_frame": inertia / max(1, frames),
        "used_clusters": int((counts > 0).sum()),
        "mean_segment_ms": frames * grid.frame_ms / max(1, segments),
    }
