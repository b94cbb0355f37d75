"""Score a hypothesis file: WER, CER and TER, or a model of phones' PER, as NIST sclite counts them."""

import sys
from pathlib import Path

from espnet_lite.bin.arguments import parser
from espnet_lite.errors import InputError, reports_input_errors


@reports_input_errors
def main(argv: list[str] | None = None) -> int:
    arguments = parser(__doc__)
    arguments.add_argument("--data_dir", type=Path, required=True, help="has text and utt2spk")
    arguments.add_argument("--hyp", type=Path, required=True, help="hypotheses, as a Kaldi text")
    arguments.add_argument(
        "--tokenizer_of",
        type=Path,
        help="packed model or tokenizer folder: for the TER, and its symbols (<noise>) are not "
        "scored; one of phones has hypotheses of phones and is scored by the PER alone",
    )
    arguments.add_argument(
        "--lexicon",
        type=Path,
        metavar="FILE",
        help="for phones: of reference words that the tokenizer has no pronunciation of",
    )
    arguments.add_argument(
        "--output_dir",
        type=Path,
        required=True,
        help="gets score.json, utterances.jsonl, errors.txt and {wer,cer,ter}/result.txt",
    )
    args = arguments.parse_args(argv)

    from espnet_lite.score.score_folder import write_score_folder
    from espnet_lite.score.scoring import score_pairs
    from espnet_lite.score.tables import summary_table
    from espnet_lite.score.transcripts import (
        characters,
        read_pairs,
        read_speakers,
        tokens_of,
        without_symbols,
        words,
    )

    splits = {"wer": words, "cer": characters}
    pairs, missing = read_pairs(args.data_dir / "text", args.hyp)
    tokenizer = _load_tokenizer(args.tokenizer_of) if args.tokenizer_of is not None else None
    if tokenizer is not None:
        splits["ter"] = tokens_of(tokenizer)
        pairs = without_symbols(pairs, tokenizer.nlsyms)
    if tokenizer is not None and tokenizer.kind == "phone":
        splits = {"per": words}
        pairs = _in_phones(pairs, tokenizer, args)
    elif args.lexicon is not None:
        raise InputError("needs a --tokenizer_of phones", where="--lexicon", fix="leave it out")
    speakers = read_speakers(args.data_dir / "utt2spk", pairs)
    scores = {kind: score_pairs(pairs, split, speakers=speakers) for kind, split in splits.items()}
    title = args.hyp.as_posix()
    write_score_folder(args.output_dir, scores, title=title, missing=missing)
    print(f"{args.data_dir.name}: {args.hyp}")
    print(summary_table(scores), end="")
    if missing:
        print(
            f"warning: {args.hyp}: {len(missing)} of {len(pairs)} utterances have no hypothesis "
            f"(first '{missing[0]}'); all their words are counted as deleted",
            file=sys.stderr,
        )
    return 0


def _load_tokenizer(path: Path):
    """Return the tokenizer of a packed model (a file) or of a folder of stage tokens."""
    from espnet_lite.text.tokenizer import Tokenizer

    if path.is_dir():
        return Tokenizer.load(path)
    from espnet_lite.runtime.format import read_header

    header = read_header(path)
    if "tokenizer" not in header:
        raise InputError("the header has no key 'tokenizer'", where=path, fix="pack it again")
    return Tokenizer.from_dict(header["tokenizer"])


def _in_phones(pairs: dict, tokenizer, args) -> dict:
    """Return the pairs with references in phones; print the words said by the oov_phone."""
    from espnet_lite.score.transcripts import phones_of_references
    from espnet_lite.text.lexicon import missing_text, missing_words, read_lexicon

    splitter = tokenizer.splitter
    if args.lexicon is not None:
        splitter = splitter.extended(read_lexicon(args.lexicon))
    references = args.data_dir / "text"
    said = phones_of_references(pairs, splitter, where=references)
    if missing := splitter.missing({name: text for name, (text, _) in pairs.items()}):
        words = missing_text(missing_words(missing, {}))
        print(f"{references}: {splitter.oov_phone} for {words} without a pronunciation")
    return said


if __name__ == "__main__":
    sys.exit(main())
