"""Make the token table and the tokenizer of a recipe from its training text (stage 3)."""

import sys
from pathlib import Path

from espnet_lite.bin.arguments import parser
from espnet_lite.errors import InputError, reports_input_errors

TOKENS_SHOWN = 12
# Token types that an option belongs to; given with another one it is refused, not ignored.
# char takes --vocab_size and does not look at it: recipes switch from bpe to char by one option.
OPTION_TYPES = {
    "vocab_size": ("bpe", "char", "word"),
    "lexicon": ("phone",),
    "oov_phone": ("phone",),
}


@reports_input_errors
def main(argv: list[str] | None = None) -> int:
    """Write tokens.txt, tokenizer.json, bpe.model or lexicon.txt to a folder, all or nothing."""
    arguments = parser(__doc__)
    arguments.add_argument(
        "--text", required=True, nargs="+", type=Path, metavar="FILE", help="Kaldi `text` files"
    )
    arguments.add_argument(
        "--dev_text",
        default=[],
        nargs="+",
        type=Path,
        metavar="FILE",
        help="further texts: their coverage is printed; phone keeps their words' pronunciations too",
    )
    arguments.add_argument("--token_type", default="char", help="char, bpe, word or phone")
    arguments.add_argument(
        "--vocab_size",
        type=int,
        metavar="N",
        help="tokens with <blank>, <unk> and <sos/eos>: bpe needs it, word has the most frequent "
        "words (0 or none: all); char takes what it finds",
    )
    arguments.add_argument(
        "--lexicon", type=Path, metavar="FILE", help="for phone: `WORD P1 P2 ...` a line"
    )
    arguments.add_argument(
        "--oov_phone",
        metavar="PHONE",
        help="for phone: says every word that the lexicon lacks; without it such words are refused",
    )
    arguments.add_argument(
        "--nlsyms", type=Path, metavar="FILE", help="non-linguistic symbols, one a line"
    )
    arguments.add_argument("--output_dir", required=True, type=Path, metavar="DIR")
    args = arguments.parse_args(argv)

    from espnet_lite.data.target_folder import check_target
    from espnet_lite.text.coverage import coverage
    from espnet_lite.text.tokenizer import TOKENIZERS, train_tokenizer

    for option, types in OPTION_TYPES.items():
        given = vars(args)[option] is not None
        if given and args.token_type in TOKENIZERS and args.token_type not in types:
            raise InputError(
                f"belongs to token type {' or '.join(types)}, not to {args.token_type}",
                where=f"--{option}",
                fix="leave it out",
            )
    # It is replaced whole: a slip as --output_dir . must not delete what else is there.
    check_target(
        args.output_dir,
        sources=[*args.text, *args.dev_text],
        marks=["tokens.txt", "tokenizer.json"],
    )
    texts = {path: transcripts(path) for path in args.text}
    dev_texts = {path: transcripts(path) for path in args.dev_text}
    nlsyms = read_symbols(args.nlsyms) if args.nlsyms is not None else []
    pronunciations = None
    if args.lexicon is not None:
        pronunciations = pronunciations_of(
            {**texts, **dev_texts}, args.lexicon, nlsyms=nlsyms, oov_phone=args.oov_phone
        )
    lines = [line for path in args.text for line in texts[path].values()]
    tokenizer = train_tokenizer(
        args.token_type,
        lines,
        vocab_size=args.vocab_size,
        nlsyms=nlsyms,
        pronunciations=pronunciations,
    )
    tokenizer.save(args.output_dir)
    shown = " ".join(tokenizer.tokens[:TOKENS_SHOWN])
    rest = " ..." if tokenizer.vocab > TOKENS_SHOWN else ""
    print(f"{args.output_dir}: {tokenizer.vocab} {tokenizer.kind} tokens of {len(lines)} lines")
    print(f"{shown}{rest}")
    for path, text in {**texts, **dev_texts}.items():
        print(f"{path}: {coverage(tokenizer, text.values())}")
    return 0


def transcripts(path: Path) -> dict[int, str]:
    """Return line number → transcript of a Kaldi `text` file, without ids.

    Raises:
        InputError: a file that cannot be read, or has no words at all.
    """
    from espnet_lite.data.tables import read_rows

    lines = {row.line: row.value for row in read_rows(path)}
    if not any(lines.values()):
        raise InputError("no words, expected lines of '<id> <words>'", where=path)
    return lines


def pronunciations_of(
    texts: dict[Path, dict[int, str]], lexicon: Path, *, nlsyms: list[str], oov_phone: str | None
) -> dict[str, tuple[str, ...]]:
    """Return the pronunciations of the words of texts; print what `oov_phone` stands for.

    Raises:
        InputError: a fault in the lexicon, or a word that it lacks, with file and line.
    """
    from espnet_lite.text.lexicon import missing_text, missing_words, pronounce, read_lexicon
    from espnet_lite.text.word import WordSplitter

    known = read_lexicon(lexicon)
    splitter = WordSplitter(nlsyms)
    symbols = set(nlsyms)
    places: dict[str, str] = {}
    for path, lines in texts.items():
        for number, line in lines.items():
            for word in splitter.split(line):
                if word not in places and word not in symbols:
                    places[word] = f"{path}:{number}"
    found = pronounce(places, known, lexicon=lexicon, oov_phone=oov_phone)
    if missing := missing_words(places, known):
        print(f"{lexicon}: {oov_phone} for {missing_text(missing)} without a pronunciation")
    return found


def read_symbols(path: Path) -> list[str]:
    """Return the symbols of a file, one a line; empty lines are skipped.

    Raises:
        InputError: a line of two words or more, or a symbol twice.
    """
    from espnet_lite.files import read_lines

    symbols: list[str] = []
    for number, line in enumerate(read_lines(path), start=1):
        words = line.removeprefix("\ufeff").split()
        if len(words) > 1:
            raise InputError(f"'{line}', expected one symbol a line", where=f"{path}:{number}")
        if words and words[0] in symbols:
            raise InputError(f"symbol '{words[0]}' for the second time", where=f"{path}:{number}")
        symbols += words
    return symbols


if __name__ == "__main__":
    sys.exit(main())
