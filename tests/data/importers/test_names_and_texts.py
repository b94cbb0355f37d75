"""Names that keep Kaldi's rules, and what may be done to words."""

from pathlib import Path

import pytest

from espnet_lite.data.importers.entry import Entry
from espnet_lite.data.importers.names import clean_name, speaker_of_path, utterance_id
from espnet_lite.data.importers.texts import clean_text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello, World!", "Hello World"),
        ("it's the dogs' “nest”", "it's the dogs nest"),
        ("l’été", "l'été"),
        ("well-known — 3.5 %", "well known 3 5"),
        ("$5 + 3 = x", "$5 + 3 = x"),
        ("¿qué?、はい。", "qué はい"),
        ("...", ""),
    ],
)
def test_strip_punctuation(text, expected):
    assert clean_text(text, strip_punctuation=True) == expected


def test_blanks_and_case():
    assert clean_text(" a\u00a0b\tc\r\n\x00d\ufeff ") == "a b c d"
    assert clean_text("İstanbul Straße", case="upper") == "İSTANBUL STRASSE"
    assert clean_text("ÉTÉ", case="lower") == "été"


@pytest.mark.parametrize(
    ("name", "expected"),
    [(" Ann Lee ", "Ann_Lee"), ("a/b\\c\t", "a_b_c"), ("안나", "안나"), ("x\u200by", "x_y")],
)
def test_clean_name(name, expected):
    assert clean_name(name) == expected


@pytest.mark.parametrize(
    ("given", "folder", "top_folder", "name_prefix"),
    [
        ("anna/1.wav", "anna", "anna", None),
        ("wav/p225/p225_001.wav", "p225", "p225", "p225"),
        ("train/anna/s1/a-b_c.wav", "s1", "anna", "a"),
        ("clips/x.mp3", None, None, None),
        ("../x/1.wav", "x", "x", None),
    ],
)
def test_speaker_of_path(given, folder, top_folder, name_prefix):
    assert speaker_of_path(given, "folder") == folder
    assert speaker_of_path(given, "top_folder") == top_folder
    assert speaker_of_path(given, "name_prefix") == name_prefix


@pytest.mark.parametrize(
    ("fields", "speaker", "expected"),
    [
        ({"given": "anna/1.wav"}, "anna", "anna-1"),
        ({"given": "anna/1.wav"}, "bob", "bob-anna-1"),
        ({"given": "/data/anna/1.wav"}, "anna", "anna-1"),
        ({"given": "../anna/1.wav"}, None, "1"),
        ({"given": "x.wav", "id": "anna2-1"}, "anna", "anna-anna2-1"),
        ({"given": "x.wav", "id": "anna_1 b"}, "anna", "anna_1_b"),
        ({"given": "x.wav", "id": "a.b"}, "a.b", "a.b"),
        (
            {"given": "x.wav", "start_seconds": 1.5, "end_seconds": 62.25},
            None,
            "x-0001500-0062250",
        ),
        ({"given": "x.wav", "start_seconds": 1.5}, "s", "s-x-0001500-end"),
    ],
)
def test_utterance_id(fields, speaker, expected):
    entry = Entry("t:1", Path("x.wav"), text="a", **fields)
    assert utterance_id(entry, speaker) == expected
