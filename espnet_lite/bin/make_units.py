"""Make HuBERT's targets: k-means units of MFCCs, or of a layer of a pre-trained model (stage 4).

Draws a sample of frames into a fixed memory, fits centroids, gives every frame the number of its
nearest one. Writes units.int16, index, units.json and centroids.safetensors; no feature reaches the
disk. A run that was killed goes on where it stopped, from <output>.shards.
"""

import argparse
import functools
import os
import sys
from pathlib import Path

from espnet_lite.bin.arguments import add_job_options, parser
from espnet_lite.errors import InputError, reports_input_errors


@reports_input_errors
def main(argv: list[str] | None = None) -> int:
    """Return 0 with the units written, or the exit code of the first process that failed."""
    args = parser(__doc__)
    args.add_argument(
        "--data_dirs", required=True, nargs="+", type=Path, help="dump folders to fit and to label"
    )
    args.add_argument(
        "--label_dirs",
        default=[],
        nargs="+",
        type=Path,
        help="further dump folders that get units too, as those of validation",
    )
    args.add_argument("--features", choices=("mfcc",), help="cluster these")
    args.add_argument("--model", type=Path, help="or a layer of this pre-trained experiment folder")
    args.add_argument("--layer", type=int, help="of the model; 0 is the encoder's input")
    args.add_argument(
        "--subtract_mean",
        action="store_true",
        help="cluster the frames less the mean of their utterance",
    )
    args.add_argument("--clusters", type=int, default=100, help="number of units")
    args.add_argument(
        "--sample_megabytes", type=float, default=400.0, help="memory for frames to fit to"
    )
    args.add_argument(
        "--sample_hours",
        type=float,
        default=100.0,
        help="speech that these frames are drawn from, if there is more",
    )
    args.add_argument("--sample_rate", type=int, default=16000, help="in Hz; a model has its own")
    args.add_argument("--seed", type=int, default=0, help="of all draws")
    args.add_argument("--nj", type=int, default=1, help="processes; cores are shared out to them")
    args.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:NUMBER")
    args.add_argument("--output", required=True, type=Path, help="folder to write")
    add_job_options(args)
    # Set by this program for its own processes: which share of the shards, the digest of what the
    # results belong to, and how many threads.
    args.add_argument("--job", type=int, help=argparse.SUPPRESS)
    args.add_argument("--fit", action="store_true", help=argparse.SUPPRESS)
    args.add_argument("--key", help=argparse.SUPPRESS)
    args.add_argument("--threads", type=int, help=argparse.SUPPRESS)
    options = args.parse_args(argv)
    if options.nj < 1:
        raise InputError(f"{options.nj} processes, expected 1 or more", where="--nj")
    if (options.features is None) == (options.model is None):
        raise InputError("expected either --features mfcc or --model EXPDIR --layer N")
    if options.fit:
        return _fit(options)
    return _make(options) if options.job is None else _label_share(options)


def _unit_options(options):
    from espnet_lite.tasks.units import UnitOptions

    return UnitOptions(
        data_dirs=tuple(options.data_dirs),
        label_dirs=tuple(options.label_dirs),
        model=options.model,
        layer=options.layer,
        subtract_mean=options.subtract_mean,
        clusters=options.clusters,
        sample_megabytes=options.sample_megabytes,
        sample_hours=options.sample_hours,
        sample_rate=options.sample_rate,
        seed=options.seed,
    )


def _make(options) -> int:
    """Fit centroids, label here or in jobs, and print what came out."""
    from espnet_lite.jobs.failure import Failure
    from espnet_lite.jobs.launcher import launcher_from
    from espnet_lite.numerics import pick_device, use_fast_matmul
    from espnet_lite.tasks.units import make_units

    launcher = launcher_from(options)
    elsewhere = options.cmd_backend != "local"  # then this machine may be one for many people
    launcher.follow = functools.partial(print, end="", flush=True)
    device = pick_device("cpu" if elsewhere else options.device)
    use_fast_matmul(device)
    in_jobs = options.nj > 1 or elsewhere
    store = make_units(
        _unit_options(options),
        output=options.output,
        device=device,
        start_jobs=functools.partial(_run_jobs, options, launcher) if in_jobs else None,
        fits_in_job=elsewhere,
        report=functools.partial(print, flush=True),
    )
    if isinstance(store, Failure):
        print(store.message, file=sys.stderr)
        return store.exit_code
    quality = store.description["quality"]
    print(
        f"{options.output}: {quality['frames']:,} units of {store.grid.frame_ms:g} ms in "
        f"{quality['utterances']:,} utterances; inertia {quality['inertia_per_frame']:.4g} a frame, "
        f"{quality['used_clusters']} of {store.clusters} clusters used, mean segment "
        f"{quality['mean_segment_ms']:.0f} ms"
    )
    return 0


def _run_jobs(options, launcher, folder: Path, digest: str, fit: bool):
    """Label in jobs, and with `fit` fit in one before, and wait for them."""
    from espnet_lite.environment import cores
    from espnet_lite.jobs.array import TASK, Array, Word, words

    resources = launcher.resources_of("make_units")
    threads = int(resources.get("cpu") or max(1, cores() // options.nj))
    command = [sys.executable, "-m", "espnet_lite.bin.make_units"]
    for name in ("data_dirs", "label_dirs"):
        if vars(options)[name]:
            command += [f"--{name}", *map(str, vars(options)[name])]
    names = ("features", "model", "layer", "clusters", "sample_megabytes", "sample_hours")
    for name in (*names, "sample_rate", "seed", "device", "output", "nj"):
        if vars(options)[name] is not None:
            command += [f"--{name}", str(vars(options)[name])]
    if options.subtract_mean:
        command.append("--subtract_mean")
    command += ["--key", digest, "--threads", str(threads)]
    shared = {
        "resources": resources,
        "threads": threads,
        "data_dirs": (*options.data_dirs, *options.label_dirs),
    }
    label = Array(
        name="make_units",
        command=words(*command, "--job", TASK),
        log=Word((f"{folder}/job.", ".log")),
        folder=folder / "jobs",
        tasks=range(1, options.nj + 1),
        **shared,
    )
    fitted = Array(
        name="fit_units",
        command=words(*command, "--fit"),
        log=Word((f"{folder}/fit.log",)),
        folder=folder / "fit",
        **shared,
    )
    return launcher.run(*([fitted] if fit else []), label)


def _fit(options) -> int:
    """Fit the centroids, as a job."""
    import torch

    from espnet_lite.numerics import pick_device, use_fast_matmul
    from espnet_lite.tasks.units import fit_centroids

    torch.set_num_threads(options.threads)
    device = pick_device(options.device)
    use_fast_matmul(device)
    fit_centroids(_unit_options(options), output=options.output, device=device, digest=options.key)
    return 0


def _label_share(options) -> int:
    """Label every nj-th shard that is not done yet; end quietly when the parent is gone."""
    parent = os.getppid()

    import torch

    from espnet_lite.numerics import pick_device, use_fast_matmul
    from espnet_lite.tasks.units import label_share

    torch.set_num_threads(options.threads)
    device = pick_device(options.device)
    use_fast_matmul(device)
    label_share(
        _unit_options(options),
        output=options.output,
        device=device,
        digest=options.key,
        job=options.job,
        jobs=options.nj,
        is_wanted=lambda: os.getppid() == parent,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
