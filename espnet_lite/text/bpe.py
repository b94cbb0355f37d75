"""Text as subwords of sentencepiece."""

import io
import re
from collections.abc import Iterable

import sentencepiece

from espnet_lite.errors import InputError

WORD_START = "\N{LOWER ONE EIGHTH BLOCK}"  # sentencepiece writes the space before a word as this
# sentencepiece drops longer lines without a word (its default: 4,192 bytes); this is a long book.
MAX_LINE_BYTES = 1 << 24


class BpeSplitter:
    """Splits text by a sentencepiece model; non-linguistic symbols are one piece each.

    Spaces at the ends are dropped and runs of them become one, as everywhere in Kaldi's `text`.
    """

    def __init__(self, model: bytes, nlsyms: Iterable[str] = ()):
        """Load a serialized model.

        Raises:
            InputError: bytes that are no sentencepiece model.
        """
        self.model = model
        self.nlsyms = tuple(nlsyms)
        self._processor = sentencepiece.SentencePieceProcessor()
        try:
            self._processor.LoadFromSerializedProto(model)
        except RuntimeError as error:
            raise InputError(f"not a sentencepiece model: {error}") from error

    @classmethod
    def train(
        cls, lines: Iterable[str], *, vocab_size: int | None, nlsyms: Iterable[str] = ()
    ) -> tuple["BpeSplitter", list[str]]:
        """Return a splitter and its pieces, `vocab_size` less <blank>, <unk> and <sos/eos>.

        The model is a unigram model (1804.10959), what ESPnet trains as token type "bpe". Text is
        not normalized, and one thread makes the result independent of the machine.

        Raises:
            InputError: a size that sentencepiece cannot reach with this text, or a reserved
                character in the text.
        """
        nlsyms = tuple(nlsyms)
        if vocab_size is None or vocab_size < 4:
            raise InputError(
                f"vocab_size is {vocab_size} for token type bpe, expected 4 or more",
                fix="give --vocab_size N",
            )
        lines = [line for line in lines if line.strip()]
        for line in lines:
            if WORD_START in line:
                raise InputError(
                    f"the text has the character '{WORD_START}', which sentencepiece keeps for "
                    f"the space: {line[:60]}"
                )
        if not lines:
            raise InputError("no text to train a tokenizer on, expected at least one word")
        model = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(lines),
                model_writer=model,
                model_type="unigram",
                # <blank> and <sos/eos> are ours and stand outside the model.
                vocab_size=vocab_size - 2,
                character_coverage=1.0,
                normalization_rule_name="identity",
                user_defined_symbols=list(nlsyms),
                max_sentence_length=MAX_LINE_BYTES,
                bos_id=-1,
                eos_id=-1,
                num_threads=1,
                minloglevel=2,
            )
        except RuntimeError as error:
            raise _unreachable_size(vocab_size, str(error)) from error
        splitter = cls(model.getvalue(), nlsyms)
        return splitter, splitter.pieces()

    def pieces(self) -> list[str]:
        """Return the pieces of the model in its order, without its own <unk>.

        Raises:
            InputError: a piece that is not UTF-8.
        """
        model = self._processor
        ids = range(model.GetPieceSize())
        try:
            return [model.IdToPiece(i) for i in ids if not model.IsUnknown(i)]
        except UnicodeDecodeError as error:
            raise InputError(f"the SentencePiece model is damaged ({error})") from error

    def split(self, text: str) -> list[str]:
        """Return the pieces of `text`; a run of unknown characters is one piece."""
        return self._processor.EncodeAsPieces(text)

    def join(self, tokens: Iterable[str]) -> str:
        """Return the text of pieces."""
        return "".join(tokens).replace(WORD_START, " ").strip(" ")


def _unreachable_size(vocab_size: int, message: str) -> InputError:
    """Return the error for what sentencepiece said about a vocabulary size, in our count."""
    too_high = re.search(r"Vocabulary size too high.*<= (\d+)", message)
    if too_high:
        limit = int(too_high[1]) + 2
        return InputError(
            f"vocab_size is {vocab_size}, but this text has pieces for at most {limit}",
            fix=f"give --vocab_size {limit} or less, or more text",
        )
    too_low = re.search(r"required_chars\. \d+ vs (\d+)", message)
    if too_low:
        limit = int(too_low[1]) + 2
        return InputError(
            f"vocab_size is {vocab_size}, but the characters of this text need at least {limit}",
            fix=f"give --vocab_size {limit} or more, or --token_type char",
        )
    return InputError(f"sentencepiece with vocab_size {vocab_size} failed: {message}")
