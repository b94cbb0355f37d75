"""What is said in the mini corpus, and by whom: a closed grammar of 60 words and 34 voices.

Everything here is fixed: the same sentences in the same order on every machine. Only
`random.Random.random()` is drawn from, because Python promises its sequence for all versions.
"""

import random
from dataclasses import dataclass

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
COLOURS = ("red", "green", "blue", "yellow", "black", "white", "orange", "purple")
OBJECTS = (
    "window",
    "camera",
    "table",
    "lamp",
    "bottle",
    "pencil",
    "radio",
    "guitar",
    "basket",
    "curtain",
)
VERBS = ("open", "close", "find", "move", "paint", "carry", "show", "bring")
PLACES = ("kitchen", "garden", "office", "garage", "cellar", "balcony")
NAMES = ("anna", "robert", "maria", "jonathan", "susan")
OTHERS = (
    "the",
    "and",
    "with",
    "in",
    "near",
    "please",
    "turn",
    "on",
    "off",
    "call",
    "number",
    "again",
    "tomorrow",
)
WORDS = NUMBERS + COLOURS + OBJECTS + VERBS + PLACES + NAMES + OTHERS

_ENDINGS = ("", "again", "tomorrow")


class _Draw:
    """Picks from tuples by one seeded stream."""

    def __init__(self, seed: str):
        self._random = random.Random(seed)

    def one(self, choices):
        return choices[int(self._random.random() * len(choices))]

    def chance(self, probability: float) -> bool:
        return self._random.random() < probability


def _request(draw: _Draw) -> str:
    """`please open the green window and the red lamp in the garage`, or a part of it."""
    words = ["please"] if draw.chance(0.35) else []
    words += [draw.one(VERBS), "the", draw.one(COLOURS), draw.one(OBJECTS)]
    if draw.chance(0.25):
        words += ["and", "the", draw.one(COLOURS), draw.one(OBJECTS)]
    elif draw.chance(0.6):
        words += [draw.one(("in", "near")), "the", draw.one(PLACES)]
    return " ".join(words)


def _switch(draw: _Draw) -> str:
    """`turn off the radio in the kitchen tomorrow`."""
    words = ["turn", draw.one(("on", "off")), "the", draw.one(OBJECTS)]
    words += ["in", "the", draw.one(PLACES), draw.one(_ENDINGS)]
    return " ".join(words)


def _call(draw: _Draw) -> str:
    """`call anna and robert on number five zero three`."""
    name = draw.one(NAMES)
    words = ["call", name]
    if draw.chance(0.3):
        words += ["and", draw.one(tuple(other for other in NAMES if other != name))]
    words += ["on", "number"] + [draw.one(NUMBERS) for _ in range(draw.one((2, 3, 4)))]
    return " ".join(words)


def _delivery(draw: _Draw) -> str:
    """`carry number six two and nine with maria tomorrow`."""
    words = [draw.one(VERBS), "number", draw.one(NUMBERS), draw.one(NUMBERS)]
    if draw.chance(0.4):
        words += ["and", draw.one(NUMBERS)]
    words += ["with", draw.one(NAMES)] if draw.chance(0.5) else ["near", "the", draw.one(PLACES)]
    words.append(draw.one(_ENDINGS))
    return " ".join(words)


_TEMPLATES = (_request, _request, _request, _switch, _call, _call, _delivery)


def all_sentences(count: int) -> list[str]:
    """Return the first `count` sentences of the corpus, no two alike."""
    draw = _Draw("mini sentences")
    found: dict[str, None] = {}
    while len(found) < count:
        found.setdefault(" ".join(draw.one(_TEMPLATES)(draw).split()))
    return list(found)


@dataclass(frozen=True, slots=True)
class Voice:
    """An accent of English, a variant (the timbre: `voices/!v` of espeak-ng), pitch and rate."""

    accent: str
    variant: str
    pitch: int  # 0-99, 50 is the variant's own
    words_per_minute: int

    @property
    def espeak_name(self) -> str:
        return f"{self.accent}+{self.variant}"

    @property
    def speaker(self) -> str:
        """`us_f3_p50_r125`: accent, variant, pitch, rate."""
        accent = self.accent.rpartition("-")[2] if self.accent != "en" else "gb"
        return f"{accent}_{self.variant.lower()}_p{self.pitch}_r{self.words_per_minute}"


# No variant stands in two sets, so dev and test are spoken by timbres the training never heard.
# `en` is British English; `x-rp` Received Pronunciation, `x-gbclan` Lancaster, `x-gbcwmd` West
# Midlands, `029` Caribbean.
VOICES = {
    "train": (
        Voice("en-us", "m1", 42, 120),
        Voice("en", "f1", 55, 130),
        Voice("en-us", "m3", 50, 135),
        Voice("en-gb-scotland", "f3", 50, 115),
        Voice("en-us", "f5", 60, 125),
        Voice("en-gb-x-rp", "m2", 38, 110),
        Voice("en-us-nyc", "m7", 45, 130),
        Voice("en-029", "f3", 62, 125),
        Voice("en", "m5", 52, 140),
        Voice("en-us", "linda", 50, 115),
        Voice("en-gb-x-gbclan", "m8", 48, 125),
        Voice("en-us", "f1", 46, 150),
        Voice("en-gb-x-gbcwmd", "f5", 50, 120),
        Voice("en-us", "david", 58, 105),
        Voice("en", "steph", 47, 135),
        Voice("en-us", "caleb", 50, 125),
        Voice("en-gb-x-rp", "f3", 56, 140),
        Voice("en-us-nyc", "robert", 55, 115),
        Voice("en-gb-scotland", "m1", 55, 145),
        Voice("en-us", "travis", 44, 130),
        Voice("en", "shelby", 52, 110),
        Voice("en-us", "klatt4", 40, 120),
        Voice("en-029", "m3", 35, 135),
        Voice("en-us", "f3", 70, 115),
    ),
    "dev": (
        Voice("en-us", "m4", 48, 125),
        Voice("en", "f2", 52, 120),
        Voice("en-us", "Michael", 50, 135),
        Voice("en-gb-x-rp", "aunty", 50, 115),
    ),
    "test": (
        Voice("en-us", "m6", 46, 130),
        Voice("en-us", "f4", 54, 125),
        Voice("en", "benjamin", 50, 115),
        Voice("en-gb-scotland", "grandma", 55, 135),
        Voice("en-gb-x-rp", "quincy", 45, 120),
        Voice("en-us-nyc", "belinda", 50, 125),
    ),
}
