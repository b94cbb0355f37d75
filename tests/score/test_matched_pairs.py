"""MAPSSWE against segments by hand and against NIST's sc_stats, where it is installed."""

import math
import random
import re
import shutil
import subprocess

import pytest

from espnet_lite.score.alignment import align_all
from espnet_lite.score.matched_pairs import matched_pairs, segments


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("CCCC", "CCCC", []),
        ("", "", []),
        ("", "II", [(0, 2)]),
        # one word that both have right does not part two errors, two words do
        ("SCSCC", "CCCCC", [(2, 0)]),
        ("SCCSC", "CCCCC", [(1, 0), (1, 0)]),
        # what is right in one system only does not count
        ("SCSCCC", "CSCCCC", [(2, 1)]),
        # an insertion between two right words keeps the segment, in either system
        ("SCICC", "CCCC", [(2, 0)]),
        ("SCCC", "CCICC", [(1, 1)]),
        ("DCC", "CCCI", [(1, 0), (0, 1)]),
    ],
)
def test_segments_by_hand(first, second, expected):
    assert list(segments(first, second)) == expected


def test_the_statistic_by_hand():
    # differences 2, 0, −1, 3: mean 1, squares 1 + 1 + 4 + 4 = 10, deviation sqrt(10 / 3)
    found = matched_pairs([("SSCC", "CCCC"), ("S", "D"), ("CC", "SC"), ("SSS", "CCC")])
    assert (found.segments, found.mean) == (4, 1.0)
    assert found.deviation == pytest.approx(math.sqrt(10 / 3))
    assert found.z == pytest.approx(1 / (math.sqrt(10 / 3) / 2))
    # 1.0954 deviations: 2 · (1 − 0.86332) of the normal distribution
    assert found.p_value == pytest.approx(0.2733, abs=1e-4)


def test_without_deviation_there_is_no_z():
    assert matched_pairs([]).p_value == 1.0
    assert matched_pairs([("S", "C")]).z is None
    same = matched_pairs([("S", "S"), ("SC", "CS")])
    assert (same.segments, same.z, same.p_value) == (2, None, 1.0)
    assert matched_pairs([("S", "C")] * 3).p_value == 0.0


def corrupted(words: list[str], rate: float, rng: random.Random) -> list[str]:
    said = []
    for word in words:
        if rng.random() < rate / 3:
            said.append(rng.choice("abcdef"))
        kind = rng.random()
        if kind > 2 * rate / 3:
            said.append(word)
        elif kind > rate / 3:
            said.append(rng.choice("abcdef"))
    return said


@pytest.mark.skipif(shutil.which("sctk") is None, reason="apt-get install sctk")
@pytest.mark.parametrize("seed", range(8))
def test_segments_and_z_are_those_of_sc_stats(tmp_path, seed):
    rng = random.Random(seed)
    references = [rng.choices("abcdef", k=rng.randint(1, 25)) for _ in range(40)]
    systems = {
        name: [corrupted(words, rate, rng) for words in references]
        for name, rate in (("first", rng.choice([0.1, 0.5])), ("second", 0.2))
    }
    piped = ""
    for name, texts in {"reference": references, **systems}.items():
        lines = [f"{' '.join(text)} (s-{index:03d})\n" for index, text in enumerate(texts)]
        (tmp_path / name).write_text("".join(lines))
        if name != "reference":
            command = ["sctk", "sclite", "-s", "-i", "rm", "-r", "reference", "trn", "-h", name]
            command += ["trn", "-o", "sgml", "stdout"]
            piped += subprocess.run(
                command, cwd=tmp_path, capture_output=True, text=True, check=True
            ).stdout
    command = ["sctk", "sc_stats", "-p", "-t", "mapsswe", "-v", "-n", "x"]
    subprocess.run(command, cwd=tmp_path, input=piped, capture_output=True, text=True, check=True)
    report = (tmp_path / "x.stats.mapsswe").read_text(encoding="latin-1")
    theirs = re.search(
        r"# segs: (\d+)\).*mean: (\S+)\) \(std dev: (\S+)\) \(Z Stat: (\S+)\)", report
    )
    steps = [
        [one.steps for one in align_all(zip(references, texts, strict=True))]
        for texts in systems.values()
    ]
    ours = matched_pairs(zip(*steps, strict=True))
    printed = (f"{value:.3f}" for value in (ours.mean, ours.deviation, ours.z))
    assert (str(ours.segments), *printed) == theirs.groups()
