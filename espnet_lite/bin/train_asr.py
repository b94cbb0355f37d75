"""Train a recognizer (stage 6): CTC, or CTC and attention."""

import sys
from pathlib import Path

from espnet_lite.bin.arguments import add_training_options, command_line, parser
from espnet_lite.errors import reports_input_errors


@reports_input_errors
def main(argv: list[str] | None = None) -> int:
    """Train in `--expdir` until done; 0 when done, 75 when a signal asked to stop and be requeued.

    The folder then holds model.safetensors (the average of the best checkpoints), model.json (the
    training record), config.yaml (resolved), tokenizer/, train.jsonl, tensorboard/ and run.sh.
    """
    args = parser(__doc__)
    add_training_options(args)
    args.add_argument("--tokenizer", required=True, type=Path, help="folder made by make_tokens")
    args.add_argument(
        "--pretrained",
        type=Path,
        help="encoder to begin with: experiment folder, file of pack_encoder, or packed model",
    )
    parsed = args.parse_args(argv)

    from espnet_lite.tasks.asr import train_asr

    return train_asr(
        config_file=parsed.config,
        overrides=parsed.overrides,
        train_dirs=parsed.train_dirs,
        dev_dirs=parsed.dev_dirs,
        cmvn_file=parsed.cmvn,
        tokenizer_dir=parsed.tokenizer,
        pretrained=parsed.pretrained,
        expdir=parsed.expdir,
        fresh=parsed.fresh,
        device_name=parsed.device,
        command=command_line("train_asr", argv),
    )


if __name__ == "__main__":
    sys.exit(main())
