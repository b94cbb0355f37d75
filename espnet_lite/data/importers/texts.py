"""What may be done to the words of a source; by default blanks alone are made single spaces."""

import unicodedata

TEXT_CASES = ("keep", "upper", "lower")


def clean_text(text: str, *, case: str = "keep", strip_punctuation: bool = False) -> str:
    """Return words parted by single spaces.

    Args:
        text: as the source has it; control characters and byte order marks count as blanks.
        case: `keep`, `upper` or `lower`.
        strip_punctuation: make every punctuation mark (Unicode category P) a blank, but for an
            apostrophe between two letters, which stays, and is written `'`.
    """
    if strip_punctuation:
        text = "".join(_without_mark(text, i) for i in range(len(text)))
    if not text.isprintable():
        text = "".join(" " if c == "\ufeff" or unicodedata.category(c) == "Cc" else c for c in text)
    text = " ".join(text.split())
    if case == "upper":
        return text.upper()
    return text.lower() if case == "lower" else text


def _without_mark(text: str, position: int) -> str:
    character = text[position]
    if not unicodedata.category(character).startswith("P"):
        return character
    before, after = text[max(0, position - 1) : position], text[position + 1 : position + 2]
    is_inside = before.isalpha() and after.isalpha()
    return "'" if character in "'’" and is_inside else " "
