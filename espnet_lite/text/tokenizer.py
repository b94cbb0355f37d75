"""Text to token ids and back, by a table of tokens and a way to split."""

import base64
import binascii
import json
from collections.abc import Iterable
from pathlib import Path

from espnet_lite.errors import InputError, unknown_name
from espnet_lite.files import atomic_folder, read_lines
from espnet_lite.text.bpe import BpeSplitter
from espnet_lite.text.char import CharSplitter
from espnet_lite.text.lexicon import Pronunciations, lexicon_text, parse_lexicon
from espnet_lite.text.phone import PhoneSplitter
from espnet_lite.text.special_tokens import BLANK, SOS_EOS, SPECIAL_TOKENS, UNKNOWN
from espnet_lite.text.word import WordSplitter

TOKENIZERS = {
    "char": CharSplitter,
    "bpe": BpeSplitter,
    "word": WordSplitter,
    "phone": PhoneSplitter,
}
Splitter = CharSplitter | BpeSplitter | WordSplitter | PhoneSplitter
# Files of a saved tokenizer, those that its kind has: together they decide what it does.
TOKENIZER_FILES = ("tokens.txt", "tokenizer.json", "bpe.model", "lexicon.txt")
MAKE_AGAIN = "make it again: ./run.sh --stage tokens --stop_stage tokens"


class Tokenizer:
    """A table of tokens (<blank> 0, <unk> 1, ..., <sos/eos> last) and the splitter it belongs to."""

    def __init__(self, tokens: list[str], splitter: Splitter):
        """Take a table as it is.

        Raises:
            InputError: special tokens out of place, an empty or a repeated token, or a table that
                is not the one of the sentencepiece model.
        """
        check_tokens(tokens)
        if isinstance(splitter, BpeSplitter) and tokens[2:-1] != splitter.pieces():
            raise InputError(
                f"a table of {len(tokens) - 3} pieces is not the one of the sentencepiece model, "
                f"which has {len(splitter.pieces())}",
                fix=MAKE_AGAIN,
            )
        self.tokens = tokens
        self.splitter = splitter
        self.blank_id = 0
        self.unknown_id = 1
        self.sos_eos_id = len(tokens) - 1
        # A word <blank> or <sos/eos> in a text is no token of CTC or the decoder, but an unknown one.
        self._ids = {token: index for index, token in enumerate(tokens[1:-1], start=1)}

    @property
    def vocab(self) -> int:
        """Number of tokens, special ones included."""
        return len(self.tokens)

    @property
    def kind(self) -> str:
        """Name in TOKENIZERS."""
        return next(name for name, kind in TOKENIZERS.items() if type(self.splitter) is kind)

    @property
    def nlsyms(self) -> tuple[str, ...]:
        """Non-linguistic symbols: one token each, not scored."""
        return self.splitter.nlsyms

    def split(self, text: str) -> list[str]:
        """Return the tokens of `text` as text, unknown ones as they stand."""
        return self.splitter.split(text)

    def encode(self, text: str) -> list[int]:
        """Return the ids of `text`; what the table lacks is <unk>."""
        return [self._ids.get(token, self.unknown_id) for token in self.splitter.split(text)]

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids; <blank> and <sos/eos> are left out, <unk> is written so."""
        silent = (self.blank_id, self.sos_eos_id)
        return self.splitter.join(self.tokens[i] for i in ids if i not in silent)

    def to_dict(self) -> dict:
        """Return all of it as what JSON can hold."""
        plain = {"kind": self.kind, "nlsyms": list(self.nlsyms), "tokens": self.tokens}
        if isinstance(self.splitter, BpeSplitter):
            plain["bpe_model"] = base64.b64encode(self.splitter.model).decode("ascii")
        if isinstance(self.splitter, PhoneSplitter):
            plain["lexicon"] = lexicon_text(self.splitter.pronunciations)
        return plain

    @classmethod
    def from_dict(cls, plain: dict, *, where: object = None) -> "Tokenizer":
        """Return the tokenizer that `to_dict` wrote.

        Raises:
            InputError: a missing or damaged part, named with `where`.
        """
        try:
            kind, nlsyms, tokens = plain["kind"], plain["nlsyms"], plain["tokens"]
            _check_texts(plain, where=where)
            model = base64.b64decode(plain["bpe_model"], validate=True) if kind == "bpe" else b""
            lexicon = plain["lexicon"].split("\n") if kind == "phone" else []
        except KeyError as error:
            raise InputError(f"tokenizer without {error}", where=where) from error
        except binascii.Error as error:
            raise InputError(
                f"tokenizer's bpe_model is not base64: {error}", where=where
            ) from error
        try:
            pronunciations = parse_lexicon(lexicon, where="lexicon")
            splitter = make_splitter(
                kind, nlsyms=nlsyms, model=model, pronunciations=pronunciations
            )
            return cls(tokens, splitter)
        except InputError as error:
            raise InputError(str(error), where=where) from error

    def save(self, folder: Path | str) -> None:
        """Write tokens.txt (a token a line), tokenizer.json and bpe's bpe.model or phone's lexicon.txt."""
        with atomic_folder(folder) as temporary:
            lines = "".join(f"{token}\n" for token in self.tokens)
            (temporary / "tokens.txt").write_text(lines, encoding="utf-8", newline="\n")
            description = {"kind": self.kind, "nlsyms": list(self.nlsyms), "vocab": self.vocab}
            (temporary / "tokenizer.json").write_text(
                json.dumps(description, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
            )
            if isinstance(self.splitter, BpeSplitter):
                (temporary / "bpe.model").write_bytes(self.splitter.model)
            if isinstance(self.splitter, PhoneSplitter):
                lexicon = lexicon_text(self.splitter.pronunciations)
                (temporary / "lexicon.txt").write_text(lexicon, encoding="utf-8", newline="\n")

    @classmethod
    def load(cls, folder: Path | str) -> "Tokenizer":
        """Return the tokenizer that `save` wrote.

        Raises:
            InputError: a missing file, or a fault in one with its line.
        """
        folder = Path(folder)
        description_file = folder / "tokenizer.json"
        text = "\n".join(read_lines(description_file, fix=MAKE_AGAIN))
        try:
            description = json.loads(text)
            kind, nlsyms = description["kind"], description["nlsyms"]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise InputError(
                f"not a tokenizer's description ({error})", where=description_file, fix=MAKE_AGAIN
            ) from error
        token_file = folder / "tokens.txt"
        tokens = read_lines(token_file, fix=MAKE_AGAIN)
        check_tokens(tokens, where=token_file)
        model = b""
        if kind == "bpe":
            model_file = folder / "bpe.model"
            if not model_file.is_file():
                raise InputError("no such file", where=model_file, fix=MAKE_AGAIN)
            model = model_file.read_bytes()
        pronunciations = {}
        if kind == "phone":
            lexicon_file = folder / "lexicon.txt"
            lexicon = read_lines(lexicon_file, fix=MAKE_AGAIN)
            pronunciations = parse_lexicon(lexicon, where=lexicon_file)
        try:
            splitter = make_splitter(
                kind, nlsyms=nlsyms, model=model, pronunciations=pronunciations
            )
            return cls(tokens, splitter)
        except InputError as error:
            raise InputError(str(error), where=folder) from error


def make_splitter(
    kind: str, *, nlsyms: Iterable[str], model: bytes, pronunciations: Pronunciations
) -> Splitter:
    """Return the splitter named `kind` in TOKENIZERS.

    Args:
        model: bpe's.
        pronunciations: phone's.

    Raises:
        InputError: an unknown name, or bytes that are no model.
    """
    if kind not in TOKENIZERS:
        raise unknown_name("token type", kind, TOKENIZERS)
    if kind == "bpe":
        return BpeSplitter(model, nlsyms)
    if kind == "phone":
        return PhoneSplitter(pronunciations, nlsyms)
    return TOKENIZERS[kind](nlsyms)


def train_tokenizer(
    kind: str,
    lines: Iterable[str],
    *,
    vocab_size: int | None = None,
    nlsyms: Iterable[str] = (),
    pronunciations: Pronunciations | None = None,
) -> Tokenizer:
    """Return a tokenizer of the training text.

    Args:
        kind: a name in TOKENIZERS.
        lines: transcripts without ids.
        vocab_size: a bpe table has exactly so many tokens, a word table at most (None or 0: all
            words); char and phone have what they find.
        nlsyms: non-linguistic symbols, one token each.
        pronunciations: for phone, of the words to keep, as `lexicon.pronounce` returns them.

    Raises:
        InputError: an unknown kind, no text, a symbol that cannot be one, a size that the text
            does not allow, or phones without pronunciations.
    """
    if kind not in TOKENIZERS:
        raise unknown_name("token type", kind, TOKENIZERS)
    nlsyms = tuple(nlsyms)
    for symbol in nlsyms:
        if symbol in SPECIAL_TOKENS or not symbol or any(c.isspace() for c in symbol):
            raise InputError(
                f"non-linguistic symbol '{symbol}', expected one without spaces that is none of "
                f"{' '.join(SPECIAL_TOKENS)}"
            )
    if vocab_size is not None and vocab_size < 0:
        raise InputError(f"vocab_size is {vocab_size}, expected 0 or more")
    if kind == "phone":
        if pronunciations is None:
            raise InputError("token type phone without a lexicon", fix="give --lexicon FILE")
        splitter, tokens = PhoneSplitter.train(lines, pronunciations=pronunciations, nlsyms=nlsyms)
    else:
        splitter, tokens = TOKENIZERS[kind].train(lines, vocab_size=vocab_size, nlsyms=nlsyms)
    if not tokens:
        raise InputError("no text to make tokens of, expected at least one character")
    return Tokenizer([BLANK, UNKNOWN, *tokens, SOS_EOS], splitter)


def check_tokens(tokens: list[str], *, where: Path | None = None) -> None:
    """Refuse a table with special tokens out of place, or an empty or a repeated token.

    Raises:
        InputError: with the line when `where`, the file of one token a line, is given.
    """

    def fault(index: int, message: str) -> InputError:
        place = f"{where}:{index + 1}" if where else f"token {index}"
        return InputError(message, where=place, fix=MAKE_AGAIN)

    if len(tokens) < 3:
        raise InputError(f"{len(tokens)} tokens, expected 3 or more", where=where, fix=MAKE_AGAIN)
    places = ((0, BLANK, "first"), (1, UNKNOWN, "second"), (len(tokens) - 1, SOS_EOS, "last"))
    for index, expected, place in places:
        if tokens[index] != expected:
            raise fault(index, f"token '{tokens[index]}', expected {expected} as the {place} one")
    first_index: dict[str, int] = {}
    for index, token in enumerate(tokens):
        if not token or "\n" in token or "\r" in token:
            raise fault(index, "empty token or one with a line end")
        if token in first_index:
            raise fault(index, f"token '{token}' is there already as token {first_index[token]}")
        first_index[token] = index


def _check_texts(plain: dict, *, where: object) -> None:
    """Raise an InputError unless the parts of a tokenizer are texts and lists of texts."""
    for key in ("kind", "bpe_model", "lexicon"):
        if not isinstance(plain.get(key, ""), str):
            raise InputError(f"tokenizer's {key} is no text", where=where)
    for key in ("nlsyms", "tokens"):
        value = plain[key]
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise InputError(f"tokenizer's {key} are no list of texts", where=where)
