"""The sets of LibriSpeech as they are published: address, checksum, and what each holds.

Checksums: SHA-256 of the large archives from torchaudio's datasets/librispeech.py; size and MD5 of
the two small ones from OpenSLR 31. Speakers: SPEAKERS.TXT of the corpus. Words of the dev and test
sets: those that published error rates divide by.
"""

from dataclasses import dataclass, field

OPENSLR = "https://www.openslr.org/resources"


@dataclass(frozen=True, slots=True)
class PublishedSet:
    """One archive and what it holds.

    Attributes:
        resource: the number of the corpus at OpenSLR: 12 is LibriSpeech, 31 mini LibriSpeech.
        sha256, md5: of the archive, in hexadecimal; one of them is known.
        size_bytes: of the archive; None where not known.
        counts: "utterances", "speakers" and "words", those that are known.
    """

    resource: int
    sha256: str | None = None
    md5: str | None = None
    size_bytes: int | None = None
    counts: dict[str, int] = field(default_factory=dict)


PUBLISHED = {
    "dev-clean": PublishedSet(
        resource=12,
        sha256="76f87d090650617fca0cac8f88b9416e0ebf80350acb97b343a85fa903728ab3",
        counts={"utterances": 2703, "speakers": 40, "words": 54402},
    ),
    "dev-other": PublishedSet(
        resource=12,
        sha256="12661c48e8c3fe1de2c1caa4c3e135193bfb1811584f11f569dd12645aa84365",
        counts={"utterances": 2864, "speakers": 33, "words": 50948},
    ),
    "test-clean": PublishedSet(
        resource=12,
        sha256="39fde525e59672dc6d1551919b1478f724438a95aa55f874b576be21967e6c23",
        counts={"utterances": 2620, "speakers": 40, "words": 52576},
    ),
    "test-other": PublishedSet(
        resource=12,
        sha256="d09c181bba5cf717b3dee7d4d592af11a3ee3a09e08ae025c5506f6ebe961c29",
        counts={"utterances": 2939, "speakers": 33, "words": 52343},
    ),
    "train-clean-100": PublishedSet(
        resource=12,
        sha256="d4ddd1d5a6ab303066f14971d768ee43278a5f2a0aa43dc716b0e64ecbbbf6e2",
        counts={"utterances": 28539, "speakers": 251},
    ),
    "train-clean-360": PublishedSet(
        resource=12,
        sha256="146a56496217e96c14334a160df97fffedd6e0a04e66b9c5af0d40be3c792ecf",
        counts={"utterances": 104014, "speakers": 921},
    ),
    "train-other-500": PublishedSet(
        resource=12,
        sha256="ddb22f27f96ec163645d53215559df6aa36515f26e01dd70798188350adcb6d2",
        counts={"utterances": 148688, "speakers": 1166},
    ),
    "train-clean-5": PublishedSet(
        resource=31,
        md5="5df7d4e78065366204ca6845bb08f490",
        size_bytes=332_954_390,
        counts={"utterances": 1519, "speakers": 28, "words": 52766},
    ),
    "dev-clean-2": PublishedSet(
        resource=31,
        md5="6d7ab67ac6a1d2c993d050e16d61080d",
        size_bytes=126_046_265,
    ),
}
