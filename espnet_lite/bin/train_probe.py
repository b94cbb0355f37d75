"""Probe a frozen encoder: how well a linear layer on its hidden states tells phones or tokens."""

import sys
from pathlib import Path

from espnet_lite.bin.arguments import parser
from espnet_lite.errors import reports_input_errors


@reports_input_errors
def main(argv: list[str] | None = None) -> int:
    """Train in `--output` until done; 0 when done, 75 when a signal asked to stop and be requeued.

    The folder then holds probe.json (also printed): accuracy on the test utterances, learned layer
    weights, sizes of the sets.
    """
    args = parser(__doc__)
    args.add_argument(
        "--upstream",
        required=True,
        help="experiment folder or file of a pre-training; random:PATH for the same model with"
        " random weights (PATH also a pretrain*.yaml); fbank or fbank:MS for filterbanks at a"
        " frame rate",
    )
    args.add_argument("--task", default="phones", help="phones (of frames) or ctc (tokens)")
    args.add_argument("--data_dirs", required=True, nargs="+", help="dump folders to train on")
    args.add_argument("--test_dirs", nargs="+", default=[], help="dump folders to test on")
    args.add_argument(
        "--test_speakers",
        nargs="+",
        default=[],
        help="instead of --test_dirs: speakers of --data_dirs to test on and not to train on",
    )
    args.add_argument("--alignments", help="folder of TextGrids, for --task phones")
    args.add_argument("--tokenizer", help="folder made by make_tokens, for --task ctc")
    args.add_argument("--output", required=True, help="folder of the probe")
    args.add_argument("--updates", type=int, default=1000, help="length of the training")
    args.add_argument("--lr", type=float, default=5.0e-3, help="peak of the learning rate")
    args.add_argument("--batch_seconds", type=float, default=60.0, help="of speech in an update")
    args.add_argument(
        "--normalize_layers",
        action="store_true",
        help="bring each frame of each layer to mean 0 and variance 1 (SUPERB does not)",
    )
    args.add_argument("--seed", type=int, default=1, help="of the probe and of random weights")
    args.add_argument("--cmvn", help="statistics, for random: and a YAML with global CMVN")
    args.add_argument("--sample_rate", type=int, default=16000, help="of fbank, in Hz")
    args.add_argument("--fresh", action="store_true", help="move an older probe aside, start anew")
    args.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parsed = args.parse_args(argv)

    from espnet_lite.config import from_plain
    from espnet_lite.tasks.probe import ProbeConfig, probe_options, train_probe

    plain = {
        "upstream": parsed.upstream,
        "task": parsed.task,
        "test_speakers": parsed.test_speakers,
        "normalize_layers": parsed.normalize_layers,
        "batch_seconds": parsed.batch_seconds,
        "sample_rate": parsed.sample_rate,
        "train": probe_options(updates=parsed.updates, lr=parsed.lr, seed=parsed.seed),
    }
    command = [sys.executable, "-m", "espnet_lite.bin.train_probe"]
    return train_probe(
        from_plain(ProbeConfig, plain),
        data_dirs=[Path(folder) for folder in parsed.data_dirs],
        test_dirs=[Path(folder) for folder in parsed.test_dirs],
        alignments_dir=Path(parsed.alignments) if parsed.alignments else None,
        tokenizer_dir=Path(parsed.tokenizer) if parsed.tokenizer else None,
        cmvn_file=Path(parsed.cmvn) if parsed.cmvn else None,
        output=Path(parsed.output),
        fresh=parsed.fresh,
        device_name=parsed.device,
        command=command + (sys.argv[1:] if argv is None else argv),
    )


if __name__ == "__main__":
    sys.exit(main())
