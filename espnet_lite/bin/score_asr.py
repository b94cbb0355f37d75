"""Score a hypothesis file: WER, CER and TER, or a model of phones' PER, as NIST sclite counts them."""

import json
import sys
from pathlib import Path

from espnet_lite.bin.arguments import parser
from espnet_lite.errors import InputError, reports_input_errors

KINDS = ("wer", "cer", "ter", "per")


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
    arguments.add_argument("--output_dir", type=Path, required=True, help="gets score.json, *.txt")
    arguments.add_argument(
        "--trn", action="store_true", help="write trn/{wer,cer,ter}.{ref,hyp}.trn for sclite too"
    )
    args = arguments.parse_args(argv)

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
    pairs = read_pairs(args.data_dir / "text", args.hyp)
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
    _write(scores, args.output_dir, title=args.hyp.as_posix(), trn=args.trn)
    print(f"{args.data_dir.name}: {args.hyp}")
    print(summary_table({kind: score.total for kind, score in scores.items()}), end="")
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


def _write(scores: dict, folder: Path, *, title: str, trn: bool) -> None:
    """Write tables and alignments, and `score.json` last: where it is, the rest is whole."""
    from espnet_lite.files import write_text
    from espnet_lite.score.sclite import write_trn
    from espnet_lite.score.scoring import scores_to_plain
    from espnet_lite.score.tables import alignment_text, score_tables

    (folder / "score.json").unlink(missing_ok=True)
    for kind in KINDS:  # of another tokenizer, scored here before
        if kind not in scores:
            (folder / f"{kind}.txt").unlink(missing_ok=True)
    for kind, score in scores.items():
        write_text(folder / f"{kind}.txt", score_tables(score, title=f"{kind.upper()} of {title}"))
        if trn:
            reference = {name: pair.reference for name, pair in score.alignments.items()}
            hypothesis = {name: pair.hypothesis for name, pair in score.alignments.items()}
            write_trn(folder / "trn" / f"{kind}.ref.trn", reference, speakers=score.speakers)
            write_trn(folder / "trn" / f"{kind}.hyp.trn", hypothesis, speakers=score.speakers)
    write_text(
        folder / "alignments.txt", alignment_text(scores["per" if "per" in scores else "wer"])
    )
    plain = scores_to_plain(scores)
    text = json.dumps(plain, indent=1, sort_keys=True, ensure_ascii=False)
    write_text(folder / "score.json", text + "\n")


if __name__ == "__main__":
    sys.exit(main())
