"""TextGrids: both text formats, both encodings, and faults with their line."""

import pytest

from espnet_lite.errors import InputError
from espnet_lite.units.textgrid import (
    IntervalTier,
    find_textgrids,
    phone_class,
    read_phones,
    read_textgrid,
    textgrid_text,
)

LONG = """File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 1.5
tiers? <exists>
size = 3
item []:
    item [1]:
        class = "IntervalTier"
        name = "words"
        xmin = 0
        xmax = 1.5
        intervals: size = 2
        intervals [1]:
            xmin = 0
            xmax = 0.5
            text = "say ""hé"" 12 ! <x>"
        intervals [2]:
            xmin = 0.5
            xmax = 1.5
            text = ""
    item [2]:
        class = "TextTier"
        name = "bells"
        xmin = 0
        xmax = 1.5
        points: size = 1
        points [1]:
            number = 0.25
            mark = "dong"
    item [3]:
        class = "IntervalTier"
        name = "phones"
        xmin = 0
        xmax = 1.5
        intervals: size = 3
        intervals [1]:
            xmin = 0.0
            xmax = 0.12
            text = "HH"
        intervals [2]:
            xmin = 0.12
            xmax = 5e-1
            text = "EY1"
        intervals [3]:
            xmin = 0.5
            xmax = 1.5
            text = "sil"
"""
SHORT = """File type = "ooTextFile"
Object class = "TextGrid"

0
1.5
<exists>
3
"IntervalTier"
"words"
0
1.5
2
0
0.5
"say ""hé"" 12 ! <x>"
0.5
1.5
""
"TextTier" "bells" 0 1.5 1
0.25 "dong"
! a comment with 12 and "quotes"
"IntervalTier"
"phones"
0
1.5
3
0.0
0.12
"HH"
0.12
.5
"EY1"
0.5
1.5
"sil"
"""
PHONES = [(0.0, 0.12, "HH"), (0.12, 0.5, "EY1"), (0.5, 1.5, "sil")]
WORDS = [(0.0, 0.5, 'say "hé" 12 ! <x>'), (0.5, 1.5, "")]


@pytest.mark.parametrize("text", [LONG, SHORT, SHORT.replace("ooTextFile", "ooTextFile short", 1)])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_formats(tmp_path, text, encoding, line_end):
    path = tmp_path / "a.TextGrid"
    raw = text.replace("\n", line_end).encode(encoding)
    path.write_bytes(b"\xfe\xff" + raw if encoding == "utf-16-be" else raw)
    tiers = read_textgrid(path)
    assert [tier.name for tier in tiers] == ["words", "phones"]
    assert tiers[0].intervals == WORDS
    assert tiers[1].intervals == PHONES == read_phones(path)
    assert read_phones(path, tier="words") == WORDS


def test_without_tiers(tmp_path):
    (tmp_path / "a.TextGrid").write_text('"ooTextFile"\n"TextGrid"\n0\n1\n<absent>\n')
    assert read_textgrid(tmp_path / "a.TextGrid") == []


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ('"TextGrid"', '"Pitch 1"', 2, "not a TextGrid in text format"),
        ("xmin = 0\n            xmax = 0.5", "xmin = 0\n            xmax = half", 18, '"say "'),
        ("xmin = 0.12", "xmin = 0.10", 43, "interval from 0.1 s, the one before ends at 0.12 s"),
        ("xmax = 0.12", "xmax = -1", 40, "interval from 0 s to -1 s runs backwards"),
        ('text = "EY1"', 'text = "EY1', 49, "a quote that is not closed"),
        ('text = "sil"', 'text = "sil', 49, "a quote that is not closed"),
        ("intervals: size = 3", "intervals: size = 4", 50, "ends here, expected a number"),
        ("intervals: size = 3", "intervals: size = 2.5", 37, "2.5, expected a count"),
        ('"TextTier"', '"PitchTier"', 24, "tier of class 'PitchTier'"),
    ],
)
def test_faults(tmp_path, old, new, line, message):
    path = tmp_path / "a.TextGrid"
    assert old in LONG
    path.write_text(LONG.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(InputError) as caught:
        read_textgrid(path)
    assert message in str(caught.value), caught.value
    assert str(caught.value).startswith(f"{path}:{line}: "), caught.value


def test_faults_of_files(tmp_path):
    path = tmp_path / "a.TextGrid"
    with pytest.raises(InputError, match=r"a\.TextGrid: no such file"):
        read_textgrid(path)
    path.write_bytes(LONG.encode("latin1"))
    with pytest.raises(InputError, match=r"a.TextGrid:18: neither UTF-8 nor UTF-16.*iconv"):
        read_textgrid(path)
    path.write_text(LONG, encoding="utf-8")
    with pytest.raises(InputError, match="no tier of intervals 'bells', it has 'words', 'phones'"):
        read_phones(path, tier="bells")


def test_phone_classes():
    said = {"AH0": "AH", "AH1": "AH", "ER2": "ER", "T": "T", " S ": "S", "p5": "p5"}
    assert {phone: phone_class(phone) for phone in said} == said
    assert {phone_class(phone) for phone in ("", " ", "sil", "SIL", "sp", "spn", "<eps>")} == {
        "sil"
    }


def test_find(tmp_path):
    for name in ("x/a.TextGrid", "x/y/b.textgrid", "z/c.TextGrid", "z/d.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    found = find_textgrids([tmp_path / "x", tmp_path / "z"])
    assert found == {
        "a": tmp_path / "x/a.TextGrid",
        "b": tmp_path / "x/y/b.textgrid",
        "c": tmp_path / "z/c.TextGrid",
    }
    (tmp_path / "z" / "a.TextGrid").write_text("")
    with pytest.raises(
        InputError, match=r"z/a.TextGrid: the alignment of 'a' is in .*x/a.TextGrid"
    ):
        find_textgrids([tmp_path])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no \*.TextGrid file below it"):
        find_textgrids([tmp_path / "empty"])
    with pytest.raises(InputError, match="none: no such folder"):
        find_textgrids([tmp_path / "none"])


def test_what_is_written_reads_back_without_gaps(tmp_path):
    words = IntervalTier("wörds", [(0.1, 0.5, 'say "hé"'), (0.5, 0.5, "x"), (0.8, 1.5, "b")])
    path = tmp_path / "x.TextGrid"
    path.write_text(textgrid_text([words, IntervalTier("none", [])], end_seconds=2.0))
    assert read_textgrid(path) == [
        IntervalTier(
            "wörds",
            [
                (0.0, 0.1, ""),
                (0.1, 0.5, 'say "hé"'),
                (0.5, 0.8, ""),
                (0.8, 1.5, "b"),
                (1.5, 2.0, ""),
            ],
        ),
        IntervalTier("none", [(0.0, 2.0, "")]),
    ]
