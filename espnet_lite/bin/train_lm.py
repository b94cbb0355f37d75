"""Make a language model of text (stage 8): an n-gram, or train a Transformer."""

import sys
from pathlib import Path

from espnet_lite.bin.arguments import command_line, parser
from espnet_lite.errors import InputError, reports_input_errors


@reports_input_errors
def main(argv: list[str] | None = None) -> int:
    """Write lm.esp, model.json (the record, with perplexities) and config.yaml to `--expdir`."""
    args = parser(__doc__)
    args.add_argument("--config", required=True, type=Path, help="YAML, conf/lm_*.yaml")
    args.add_argument(
        "--text",
        nargs="+",
        type=Path,
        default=[],
        metavar="FILE",
        help="Kaldi `text` files (<id> <words>) to learn from; .gz is read too",
    )
    args.add_argument(
        "--plain_text",
        nargs="+",
        type=Path,
        default=[],
        metavar="FILE",
        help="files of sentences without ids; .gz is read too",
    )
    args.add_argument(
        "--dev_text",
        nargs="+",
        type=Path,
        default=[],
        metavar="FILE",
        help="Kaldi `text` files to tell the perplexity of",
    )
    args.add_argument(
        "--held_out_text",
        nargs="+",
        type=Path,
        default=[],
        metavar="FILE",
        help="further Kaldi `text` files, the test sets': sentences that share eight words in a row"
        " with them or with --dev_text are left out of the text",
    )
    args.add_argument(
        "--tokenizer",
        type=Path,
        metavar="PATH",
        help="folder made by make_tokens, or a packed model: the model foretells its tokens",
    )
    args.add_argument("--expdir", required=True, type=Path, help="folder to write")
    args.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    args.add_argument(
        "--fresh", action="store_true", help="move an experiment aside, start anew (Transformer)"
    )
    args.add_argument("--device", default="auto", help="auto, cpu or cuda (Transformer)")
    options = args.parse_args(argv)

    from espnet_lite.tasks.lm import load_lm_config
    from espnet_lite.tasks.lm_text import read_lm_text
    from espnet_lite.tasks.ngram import NgramConfig, train_ngram
    from espnet_lite.tasks.training import recorded_command
    from espnet_lite.tasks.transformer_lm import train_transformer_lm

    config = load_lm_config(options.config, options.overrides)
    tokenizer = None if options.tokenizer is None else _load_tokenizer(options.tokenizer)
    text = read_lm_text(
        text=options.text,
        plain_text=options.plain_text,
        dev_text=options.dev_text,
        held_out_text=options.held_out_text,
    )
    command = command_line("train_lm", argv)
    if not isinstance(config, NgramConfig):
        return train_transformer_lm(
            config,
            config_file=options.config,
            text=text,
            tokenizer=tokenizer,
            expdir=options.expdir,
            fresh=options.fresh,
            device_name=options.device,
            command=command,
        )
    return train_ngram(
        config,
        config_file=options.config,
        text=text,
        tokenizer=tokenizer,
        expdir=options.expdir,
        command=recorded_command(command),
    )


def _load_tokenizer(path: Path):
    """Return the tokenizer of a packed model (a file) or of a folder of stage tokens."""
    from espnet_lite.runtime.format import read_header
    from espnet_lite.text.tokenizer import Tokenizer

    if path.is_dir():
        return Tokenizer.load(path)
    header = read_header(path)
    if "tokenizer" not in header:
        raise InputError("the header has no key 'tokenizer'", where=path, fix="name a recognizer")
    return Tokenizer.from_dict(header["tokenizer"], where=path)


if __name__ == "__main__":
    sys.exit(main())
