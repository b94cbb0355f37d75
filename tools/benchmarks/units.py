#!/usr/bin/env python
"""Units by k-means: ours against frames dumped to disk and sklearn's mini-batch k-means.

    python tools/benchmarks/units.py --peer_python .venv_peers/bin/python [--threads 1] [--runs 3]
    python tools/benchmarks/units.py ... --data_dirs DUMP      real speech for the 39 dimensions
    python tools/benchmarks/units.py --memory [--hours 5 960]  memory alone, features drawn on the fly

Both sides get the same frames from the same function, whose own time is subtracted on neither side
because it runs before the clock. The peer does what fairseq's HuBERT scripts do: writes them to a .npy
file, reads it, fits MiniBatchKMeans (batch 10,000, 20 initialisations, 100 epochs, stop after 100 batches
without improvement, reassignment 0, k-means++), labels all frames. Ours draws them into a reservoir,
fits, labels, writes int16. Runs take turns; medians. The inertia of both is measured in one way, on all
frames; the table says if ours is within 1 % of the peer's or lower.
"""

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from espnet_lite.bin.arguments import parser
from espnet_lite.errors import InputError, reports_input_errors

BLOCK_SECONDS = 200  # of speech in a batch
SETTINGS = {39: (100, 100.0), 256: (500, 25.0)}  # dim: clusters, frames a second

# Runs in the peers' Python: argument file.json with frames (.npy blocks), clusters, threads, output.
PEER = """
import json, sys, time
import numpy as np
from sklearn.cluster import MiniBatchKMeans
from threadpoolctl import threadpool_limits
told = json.load(open(sys.argv[1]))
blocks = np.load(told["blocks"])  # before the clock: stands for the feature extractor
with threadpool_limits(told["threads"]):
    started = time.perf_counter()
    np.save(told["dump"], blocks)
    frames = np.load(told["dump"], mmap_mode="r")
    model = MiniBatchKMeans(
        n_clusters=told["clusters"], init="k-means++", max_iter=100, batch_size=10000,
        compute_labels=False, tol=0.0, max_no_improvement=100, init_size=None, n_init=20,
        reassignment_ratio=0.0, random_state=told["seed"],
    ).fit(frames)
    labels = model.predict(frames)
    np.save(told["labels"], labels.astype(np.int16))
    seconds = time.perf_counter() - started
np.save(told["centroids"], model.cluster_centers_)
print(json.dumps({"seconds": seconds}))
"""


def drawn_frames(count: int, dim: int, seed: int) -> Iterator:
    """Yield blocks of frames: slowly moving mixtures of 400 states, as speech is of phones."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    scale = torch.linspace(2.0, 0.2, dim)
    states = 2 * torch.randn(400, dim, generator=generator) * scale
    block = int(BLOCK_SECONDS * SETTINGS[dim][1])
    for start in range(0, count, block):
        size = min(block, count - start)
        runs = torch.randint(400, (size // 6 + 2,), generator=generator)
        which = runs.repeat_interleave(6)[: size + 6]
        ramp = (torch.arange(size) % 6 / 6.0)[:, None]
        mixed = states[which[:size]] * (1 - ramp) + states[which[6 : size + 6]] * ramp
        yield mixed + torch.randn(size, dim, generator=generator) * scale


def speech_frames(folders: list[Path]) -> Iterator:
    """Yield the MFCCs that the first units are made of."""
    from espnet_lite.data.loader import Loader
    from espnet_lite.nn.masks import valid_mask
    from espnet_lite.tasks.training import read_sets
    from espnet_lite.units.features import MfccUnitFeatures

    features = MfccUnitFeatures()
    loader = Loader(
        read_sets(folders, need_text=False),
        None,
        sample_rate=features.grid.sample_rate,
        batch_seconds=200.0,
        seed=0,
        shuffle=False,
        cache_gigabytes=0,
    )
    for batch in loader.batches(0):
        frames, lengths = features(batch.waveform, batch.waveform_lengths)
        yield frames[valid_mask(lengths, frames.size(1))]


def ours(blocks: list, *, clusters: int, megabytes: float, seed: int, labels: Path) -> tuple:
    """Return seconds and centroids of one run."""
    import torch

    from espnet_lite.units.kmeans import assign, fit_kmeans
    from espnet_lite.units.reservoir import Reservoir

    started = time.perf_counter()
    dim = blocks[0].size(1)
    generator = torch.Generator().manual_seed(seed)
    reservoir = Reservoir(int(megabytes * 1e6 / (4 * dim)), dim=dim, generator=generator)
    for block in blocks:
        reservoir.add(block)
    fitted = fit_kmeans(reservoir.sample(), clusters=clusters, generator=generator)
    with labels.open("wb") as file:
        for block in blocks:
            file.write(assign(block, fitted.centroids)[0].short().numpy().tobytes())
    return time.perf_counter() - started, fitted.centroids


def peer(python: str, folder: Path, *, clusters: int, threads: int, seed: int) -> tuple:
    """Return seconds and centroids of one run; `folder` has frames.npy."""
    import numpy as np
    import torch

    told = {
        name: str(folder / f"{file}.npy")
        for name, file in (("blocks", "frames"), ("dump", "dump"), ("labels", "labels"))
    }
    told |= {"centroids": str(folder / "centroids.npy")}
    told |= {"clusters": clusters, "threads": threads, "seed": seed}
    (folder / "told.json").write_text(json.dumps(told))
    done = subprocess.run(
        [python, "-W", "ignore", "-c", PEER, str(folder / "told.json")],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise InputError(
            f"the peer failed: {done.stderr.strip().splitlines()[-1:]}",
            where="--peer_python",
            fix="install it: tools/setup_peers.sh",
        )
    centroids = torch.from_numpy(np.load(folder / "centroids.npy")).float()
    return json.loads(done.stdout)["seconds"], centroids


def inertia_of(blocks: list, centroids) -> float:
    """Return the mean squared distance of all frames to their centroid, for both sides alike."""
    from espnet_lite.units.kmeans import assign

    total = sum(float(assign(block, centroids)[1].double().sum()) for block in blocks)
    return total / sum(map(len, blocks))


def compare(args) -> None:
    """Print the table of speeds."""
    import numpy as np
    import torch

    from espnet_lite.environment import cpu_name

    torch.set_num_threads(args.threads)
    print(
        f"k-means of {args.hours[0]:g} h, medians of {args.runs} runs with {args.threads} threads; "
        f"{cpu_name()}, torch {torch.__version__}"
    )
    print("| frames | clusters | side | seconds | ratio | inertia a frame | against peer |")
    print("| --- | ---: | --- | ---: | ---: | ---: | ---: |")
    for dim in args.dims:
        clusters, rate = SETTINGS[dim]
        count = int(args.hours[0] * 3600 * rate)
        is_speech = dim == 39 and args.data_dirs
        source = speech_frames(args.data_dirs) if is_speech else drawn_frames(count, dim, 0)
        blocks = list(source)
        count = sum(map(len, blocks))
        results: dict[str, list] = {"sklearn": [], "ours": []}
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            np.save(folder / "frames.npy", torch.cat(blocks).numpy())
            for seed in range(args.runs):
                results["sklearn"].append(
                    peer(
                        args.peer_python, folder, clusters=clusters, threads=args.threads, seed=seed
                    )
                )
                results["ours"].append(
                    ours(
                        blocks,
                        clusters=clusters,
                        megabytes=args.sample_megabytes,
                        seed=seed,
                        labels=folder / "units.int16",
                    )
                )
        seconds = {side: statistics.median(s for s, _ in runs) for side, runs in results.items()}
        inertia = {
            side: statistics.median(inertia_of(blocks, centroids) for _, centroids in runs)
            for side, runs in results.items()
        }
        kind = "MFCC of speech" if is_speech else "drawn"
        for side in results:
            print(
                f"| {count:,} × {dim}, {kind} | {clusters} | {side} | {seconds[side]:.1f} | "
                f"{seconds['sklearn'] / seconds[side]:.1f} | {inertia[side]:.2f} | "
                f"{100 * (inertia[side] / inertia['sklearn'] - 1):+.2f} % |",
                flush=True,
            )


def measure_memory(args) -> None:
    """Print the peak memory of sample, fit and labels for each length, each in a fresh process."""
    print("| hours | dim | frames | peak memory in 10⁶ bytes |")
    print("| ---: | ---: | ---: | ---: |")
    for dim in args.dims:
        for hours in args.hours:
            command = [sys.executable, __file__, "--one_memory", "--dims", str(dim)]
            command += ["--hours", str(hours), "--sample_megabytes", str(args.sample_megabytes)]
            command += ["--threads", str(args.threads)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            told = json.loads(done.stdout)
            print(
                f"| {hours:g} | {dim} | {told['frames']:,} | {told['megabytes']:.0f} |", flush=True
            )


def one_memory(args) -> None:
    """Print as JSON what one process took that keeps no frame beside the sample."""
    import torch

    from espnet_lite.units.kmeans import assign, fit_kmeans
    from espnet_lite.units.reservoir import Reservoir

    torch.set_num_threads(args.threads)
    dim, hours = args.dims[0], args.hours[0]
    clusters, rate = SETTINGS[dim]
    generator = torch.Generator().manual_seed(0)
    capacity = int(args.sample_megabytes * 1e6 / (4 * dim))
    reservoir = Reservoir(capacity, dim=dim, generator=generator)
    count = int(hours * 3600 * rate)
    for block in drawn_frames(count, dim, 0):
        reservoir.add(block)
    fitted = fit_kmeans(reservoir.sample(), clusters=clusters, generator=generator)
    with tempfile.TemporaryFile() as file:
        # The second pass takes the same for each block; an hour shows it.
        for block in drawn_frames(min(count, int(3600 * rate)), dim, 0):
            file.write(assign(block, fitted.centroids)[0].short().numpy().tobytes())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6  # Linux counts kB
    print(json.dumps({"frames": reservoir.seen, "megabytes": peak}))


@reports_input_errors
def main(argv: list[str] | None = None) -> int:
    """Print the table asked for."""
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--peer_python", help="Python with sklearn: tools/setup_peers.sh")
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--runs", type=int, default=3, help="of each side; the median counts")
    arguments.add_argument("--dims", type=int, nargs="+", choices=SETTINGS, default=list(SETTINGS))
    arguments.add_argument("--hours", type=float, nargs="+", default=[5.0], help="of speech, drawn")
    arguments.add_argument("--sample_megabytes", type=float, default=400.0)
    arguments.add_argument("--data_dirs", type=Path, nargs="+", help="dump folders: real MFCCs")
    arguments.add_argument("--memory", action="store_true", help="measure memory instead")
    arguments.add_argument("--one_memory", action="store_true", help="by itself, for --memory")
    args = arguments.parse_args(argv)
    if args.one_memory:
        one_memory(args)
    elif args.memory:
        measure_memory(args)
    elif args.peer_python is None:
        raise InputError("not given", where="--peer_python", fix="install it: tools/setup_peers.sh")
    else:
        compare(args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
