"""Decode a dump folder with a packed model, shared out over local processes (stage 9).

Writes text, nbest.jsonl and decode.json. A run that was killed goes on where it stopped, from
<output_dir>.shards. In decode.json, `wall_seconds` is the time of the decoding loop (waiting for
audio, front end, encoder, search; without start and model loading), summed over the processes, and
rtf = wall_seconds / audio_seconds: seconds that one process of `threads` threads needs for one
second of audio while nj of them run.
"""

import argparse
import hashlib
import os
import sys
import time
from pathlib import Path

from espnet_lite.bin.arguments import add_job_options, parser
from espnet_lite.errors import InputError, reports_input_errors

RUNTIMES = ("packed", "torch")


@reports_input_errors
def main(argv: list[str] | None = None) -> int:
    """Return 0 with the output written, or the exit code of the first process that failed."""
    args = parser(__doc__)
    args.add_argument("--model", required=True, type=Path, help="packed model (*.esp)")
    args.add_argument("--data_dir", required=True, type=Path, help="dump folder to decode")
    args.add_argument("--config", required=True, type=Path, help="YAML, conf/decode_*.yaml")
    args.add_argument("--output_dir", required=True, type=Path, help="folder to write")
    args.add_argument(
        "--lm",
        type=Path,
        help="language model: lm.esp of train_lm, or an ARPA file of tokens; read where the config"
        " gives it a weight",
    )
    args.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="a value of the config, e.g. --set ctc_weight=0.4",
    )
    args.add_argument(
        "--runtime",
        choices=RUNTIMES,
        default="packed",
        help="what computes: packed, the kernels for few bits; torch, the reference on any device",
    )
    args.add_argument("--nj", type=int, default=1, help="processes; cores are shared out to them")
    add_job_options(args)
    # Set by this program for its own processes: which share of the batches, the digest of what is
    # decoded, and how many threads.
    args.add_argument("--job", type=int, help=argparse.SUPPRESS)
    args.add_argument("--key", help=argparse.SUPPRESS)
    args.add_argument("--threads", type=int, help=argparse.SUPPRESS)
    options = args.parse_args(argv)
    if options.nj < 1:
        raise InputError(f"{options.nj} processes, expected 1 or more", where="--nj")
    return _decode(options) if options.job is None else _decode_share(options)


def _plan(options):
    """Return (decoding config, utterances, batches): the same in every process."""
    from espnet_lite.data.data_dir import read_data_dir
    from espnet_lite.decode.config import load_decode_config
    from espnet_lite.decode.planning import plan_decoding
    from espnet_lite.runtime.format import read_checked_header

    config = load_decode_config(options.config, options.overrides)
    header = read_checked_header(options.model)
    if config.needs_decoder and header["architecture"]["decoder"] is None:
        raise InputError(
            "method joint_beam needs an attention decoder, and this packed model has none",
            where=options.model,
            fix="train with one and pack it with `decoder: true` (conf/quantize_*.yaml),"
            " or decode with ctc_weight 1.0 or method ctc_beam",
        )
    if config.needs_lm and options.lm is None:
        raise InputError(
            f"method {config.method} with lm_weight {config.lm_weight} needs a language model",
            where=options.config,
            fix="name one: decode_asr --lm FILE, run.sh --lm_config conf/lm_ngram.yaml",
        )
    sample_rate = header["sample_rate"]
    utterances = read_data_dir(options.data_dir, need_text=False)
    batches = plan_decoding(utterances, sample_rate=sample_rate, batch_seconds=config.batch_seconds)
    return config, utterances, batches


def _decode(options) -> int:
    """Start the processes, wait for them, and merge what they wrote."""
    from espnet_lite.config import to_plain
    from espnet_lite.decode import shards
    from espnet_lite.environment import cores, describe
    from espnet_lite.jobs.array import TASK, Array, Word, words
    from espnet_lite.jobs.launcher import launcher_from
    from espnet_lite.lm.header import read_lm_header
    from espnet_lite.locks import folder_lock
    from espnet_lite.runtime.format import file_sha256

    started = time.perf_counter()
    launcher = launcher_from(options)
    resources = launcher.resources_of("decode_asr")
    config, utterances, batches = _plan(options)
    model = {
        "path": str(options.model),
        "sha256": file_sha256(options.model),
        "bytes": options.model.stat().st_size,
    }
    lm = None
    if config.needs_lm:
        header = read_lm_header(options.lm)
        lm = {
            "path": str(options.lm),
            "sha256": file_sha256(options.lm),
            "bytes": options.lm.stat().st_size,
            "family": header["family"],
            "record": header["record"],
        }
    key = {
        "model_sha256": model["sha256"],
        "lm_sha256": lm and lm["sha256"],
        "config": to_plain(config),
        "runtime": options.runtime,
        "utterances_sha256": hashlib.sha256(repr(list(utterances)).encode("utf-8")).hexdigest(),
    }
    nj = min(options.nj, len(batches))
    threads = int(resources.get("cpu") or max(1, cores() // nj))
    folder = shards.shards_folder(options.output_dir)
    with folder_lock(folder):
        digest = shards.prepare(folder, key)
        reused = len(shards.read_results(folder, digest))
        if reused < len(batches):
            shares = Array(
                name="decode_asr",
                command=words(
                    *_share_command(options, nj=nj, digest=digest, threads=threads), "--job", TASK
                ),
                log=Word((f"{folder}/job.", ".log")),
                folder=folder / "jobs",
                tasks=range(1, nj + 1),
                resources=resources,
                threads=threads,
                data_dirs=(options.data_dir,),
            )
            failure = launcher.run(shares)
            if failure is not None:
                print(failure.message, file=sys.stderr)
                return failure.exit_code
        results = shards.read_results(folder, digest)
        audio_seconds = sum(result.audio_seconds for result in results.values())
        wall_seconds = sum(result.wall_seconds for result in results.values())
        summary = {
            "rtf": round(wall_seconds / audio_seconds, 6),
            "audio_seconds": round(audio_seconds, 3),
            "wall_seconds": round(wall_seconds, 3),
            "elapsed_seconds": round(time.perf_counter() - started, 3),  # of this run, with start
            "batches": len(batches),
            "reused_batches": reused,
            "nj": nj,
            "threads": threads,
            "runtime": options.runtime,
            "utterances": len(utterances),
            "data_dir": str(options.data_dir),
            "model": model,
            "lm": lm,
            "config": to_plain(config),
            "config_file": str(options.config),
            "environment": describe(),
        }
        shards.write_output(options.output_dir, list(results.values()), summary)
        shards.remove(folder)
    print(
        f"{options.output_dir}: {len(utterances)} utterances, {audio_seconds:.1f} s of audio, "
        f"RTF {summary['rtf']:.4f} (nj {nj}, {threads} threads each), "
        f"{summary['elapsed_seconds']:.1f} s in all"
        + (f", {reused} of {len(batches)} batches were there" if reused else "")
    )
    return 0


def _share_command(options, *, nj: int, digest: str, threads: int) -> list[str]:
    command = [sys.executable, "-m", "espnet_lite.bin.decode_asr"]
    for name in ("model", "data_dir", "config", "output_dir", "runtime"):
        command += [f"--{name}", str(vars(options)[name])]
    if options.lm is not None:
        command += ["--lm", str(options.lm)]
    for override in options.overrides:
        command += ["--set", override]
    return [*command, "--nj", str(nj), "--key", digest, "--threads", str(threads)]


def _decode_share(options) -> int:
    """Decode every nj-th batch that is not done yet; end quietly when the parent is gone."""
    parent = os.getppid()

    import torch

    from espnet_lite.decode import shards
    from espnet_lite.decode.batched import decode_batches
    from espnet_lite.decode.language_model import load_language_model
    from espnet_lite.decode.packed_decoder import load_decoder
    from espnet_lite.numerics import use_fast_matmul
    from espnet_lite.runtime.kernels import use_kernels
    from espnet_lite.runtime.packed_model import PackedModel

    torch.set_num_threads(options.threads)
    use_fast_matmul(torch.device("cpu"))
    config, _, batches = _plan(options)
    folder = shards.shards_folder(options.output_dir)
    done = shards.read_results(folder, options.key)
    share = {
        number: batches[number]
        for number in range(options.job - 1, len(batches), options.nj)
        if number not in done
    }
    if not share:
        return 0
    model = PackedModel.load(options.model)
    if options.runtime == "packed":
        use_kernels(model)
    decoder = load_decoder(options.model, dim=model.encoder.dim) if config.needs_decoder else None
    lm = load_language_model(options.lm, model.tokenizer, config) if config.needs_lm else None
    path = shards.results_path(folder, options.key, job=options.job)
    for result in decode_batches(model, share, config, decoder, lm):
        if os.getppid() != parent:
            print("the program that started this one is gone", flush=True)
            return 1
        shards.append_result(path, result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
