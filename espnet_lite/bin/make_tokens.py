"""Make the token table and the tokenizer of a recipe from its training text (stage 3)."""

import sys
from pathlib import Path

from espnet_lite.bin.arguments import parser
from espnet_lite.errors import InputError, reports_input_errors

TOKENS_SHOWN = 12


@reports_input_errors
def main(argv: list[str] | None = None) -> int:
    """Write tokens.txt, tokenizer.json and, for bpe, bpe.model to a folder, all or nothing."""
    arguments = parser(__doc__)
    arguments.add_argument(
        "--text", required=True, nargs="+", type=Path, metavar="FILE", help="Kaldi `text` files"
    )
    arguments.add_argument("--token_type", default="char", help="char or bpe")
    arguments.add_argument(
        "--vocab_size",
        type=int,
        metavar="N",
        help="tokens with <blank>, <unk> and <sos/eos>; only bpe needs it, char takes what it finds",
    )
    arguments.add_argument(
        "--nlsyms", type=Path, metavar="FILE", help="non-linguistic symbols, one a line"
    )
    arguments.add_argument("--output_dir", required=True, type=Path, metavar="DIR")
    args = arguments.parse_args(argv)

    from espnet_lite.text.tokenizer import train_tokenizer

    lines = [line for path in args.text for line in transcripts(path)]
    nlsyms = read_symbols(args.nlsyms) if args.nlsyms is not None else []
    tokenizer = train_tokenizer(args.token_type, lines, vocab_size=args.vocab_size, nlsyms=nlsyms)
    tokenizer.save(args.output_dir)
    shown = " ".join(tokenizer.tokens[:TOKENS_SHOWN])
    rest = " ..." if tokenizer.vocab > TOKENS_SHOWN else ""
    print(f"{args.output_dir}: {tokenizer.vocab} {tokenizer.kind} tokens of {len(lines)} lines")
    print(f"{shown}{rest}")
    return 0


def transcripts(path: Path) -> list[str]:
    """Return the transcripts of a Kaldi `text` file without their ids.

    Raises:
        InputError: a file that cannot be read, or has no words at all.
    """
    from espnet_lite.data.tables import read_rows

    lines = [row.value for row in read_rows(path)]
    if not any(lines):
        raise InputError("no words, expected lines of '<id> <words>'", where=path)
    return lines


def read_symbols(path: Path) -> list[str]:
    """Return the symbols of a file, one a line; empty lines are skipped.

    Raises:
        InputError: a line of two words or more, or a symbol twice.
    """
    from espnet_lite.files import read_lines

    symbols: list[str] = []
    for number, line in enumerate(read_lines(path), start=1):
        words = line.split()
        if len(words) > 1:
            raise InputError(f"'{line}', expected one symbol a line", where=f"{path}:{number}")
        if words and words[0] in symbols:
            raise InputError(f"symbol '{words[0]}' for the second time", where=f"{path}:{number}")
        symbols += words
    return symbols


if __name__ == "__main__":
    sys.exit(main())
