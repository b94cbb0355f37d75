"""Utterance tables: what a plain reader of lines says, for good and bad folders; files stay open."""

import copy
import gc
import itertools
import os
import pickle
import random
import resource
import shutil
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from espnet_lite.data import data_dir
from espnet_lite.data.data_dir import (
    Segment,
    Utterance,
    parse_count,
    parse_segment,
    read_data_dir,
    write_data_dir,
)
from espnet_lite.data.tables import BLANKS, fix_command, read_table
from espnet_lite.data.utterance_table import UtteranceTable, join_tables
from espnet_lite.errors import InputError


def read_plainly(folder: Path, *, need_text: bool) -> list[Utterance]:
    """Return the utterances by dictionaries: the oracle."""
    recordings = read_table(folder / "wav.scp")
    segments = None
    if (folder / "segments").exists():
        segments = {}
        for line, (key, value) in enumerate(read_table(folder / "segments").items(), start=1):
            where = f"{folder}/segments:{line}"
            segments[key] = parse_segment(value, where=where)
            if segments[key].recording not in recordings:
                raise InputError(
                    f"recording '{segments[key].recording}' of utterance '{key}' is not in wav.scp",
                    where=where,
                    fix=fix_command(folder),
                )
    ids = list(recordings if segments is None else segments)
    if not ids:
        raise InputError("no utterances", where=folder / "wav.scp")
    speakers = read_matching(folder, "utt2spk", ids)
    has_text = need_text or (folder / "text").exists()
    texts = read_matching(folder, "text", ids) if has_text else None
    counts = None
    if (folder / "utt2num_samples").exists():
        counts = {
            key: parse_count(value, where=f"{folder}/utt2num_samples:{line}")
            for line, (key, value) in enumerate(
                read_matching(folder, "utt2num_samples", ids).items(), start=1
            )
        }
    found = []
    for key in ids:
        segment = Segment(key, 0.0, None) if segments is None else segments[key]
        found.append(
            Utterance(
                id=key,
                audio=recordings[segment.recording],
                start_seconds=None if segments is None else segment.start_seconds,
                end_seconds=segment.end_seconds,
                text=None if texts is None else BLANKS.sub(" ", texts[key]),
                speaker=speakers[key],
                num_samples=None if counts is None else counts[key],
            )
        )
    return found


def read_matching(folder: Path, name: str, ids: list[str]) -> dict[str, str]:
    table = read_table(folder / name)
    audio_table = "segments" if (folder / "segments").exists() else "wav.scp"
    for lacking, having, lines, known in (
        (name, audio_table, ids, table),
        (audio_table, name, list(table), set(ids)),
    ):
        for line, key in enumerate(lines, start=1):
            if key not in known:
                raise InputError(
                    f"utterance '{key}' is not in {lacking}",
                    where=f"{folder}/{having}:{line}",
                    fix=fix_command(folder),
                )
    return table


def outcome(read, folder: Path, **options) -> list[Utterance] | str:
    try:
        return list(read(folder, **options))
    except InputError as error:
        return str(error)


def random_line(key: str, value: str, draw: random.Random) -> str:
    """Return a line with blanks as people leave them."""
    blanks = ["", "", "", " ", "\t", " \t "]
    between = draw.choice([" ", " ", " ", "\t", "  ", " \t"]) if value else ""
    return draw.choice(blanks[:5]) + key + between + value + draw.choice(blanks)


def random_folder(folder: Path, draw: random.Random) -> None:
    """Write a valid folder, untidy now and then."""
    letters = draw.choice(["ab", "ab-019", "aé語😀", "a\u00a0\x0b"])
    names = {
        "".join(draw.choices(letters, k=draw.randint(1, 5))) for _ in range(draw.randint(1, 30))
    }
    if draw.random() < 0.1:
        names.add(draw.choice(["\ufeffa", "a\0", "a\0\0b", "x" * 300]))
    ids = sorted(names, key=str.encode)
    words = ["", "one", "zwei drei", "two \t words", "café 語", "1 2  3"]
    tables = {
        "wav.scp": [(key, draw.choice(["a b.wav", "x.ark:12", "sox  x |"])) for key in ids],
        "utt2spk": [(key, draw.choice([key, "spk", "two words", ""])) for key in ids],
    }
    if draw.random() < 0.8:
        tables["text"] = [(key, draw.choice(words)) for key in ids]
    if draw.random() < 0.7:
        counts = ["1", "16000", "007", "9" * 18, "0" * 20 + "5", "1" * 19]
        tables["utt2num_samples"] = [(key, draw.choice(counts)) for key in ids]
    if draw.random() < 0.3:
        spans = ["0 1", "0.25 1.5", "1e-1 -1", "2  3.0"]
        tables["segments"] = [(key, f"{draw.choice(ids)} {draw.choice(spans)}") for key in ids]
    is_untidy = draw.random() < 0.5
    for name, rows in tables.items():
        lines = [
            random_line(key, value, draw) if is_untidy else f"{key} {value}".rstrip(" ")
            for key, value in rows
        ]
        text = "\n".join(lines) + ("\n" if draw.random() < 0.8 else "")
        (folder / name).write_bytes(text.encode())


def spoil(folder: Path, draw: random.Random) -> None:
    """Do something to one of the tables that is wrong, or nearly so."""
    path = draw.choice(sorted(folder.iterdir()))
    lines = path.read_bytes().split(b"\n")
    place = draw.randrange(len(lines))
    line = lines[place]
    kind = draw.randrange(11)
    if kind == 0:
        del lines[place]
    elif kind == 1:
        lines.insert(place, line)
    elif kind == 2:
        lines.insert(place, draw.choice([b"", b" \t", b"\xef\xbb\xbf", b"zzz 5", b"a"]))
    elif kind == 3:
        draw.shuffle(lines)
    elif kind == 4:
        lines[place] = line + draw.choice([b"\r", b"\0", b"\xe9", b" 7", b"7"])
    elif kind == 5:
        lines[place] = draw.choice([b"\xc3", b"\r", b"\0", b"b", "ü".encode()]) + line
    elif kind == 6:
        lines[place] = line.split(b" ")[0]
    elif kind == 7:
        lines[place] = line.split(b" ")[0] + draw.choice([b" 0", b" 1e3", b" -1", "  ²".encode()])
    elif kind == 8:
        lines = draw.choice([[b""], [b"", b""], lines[:1]])
    elif kind == 9:
        lines[place] = line.split(b" ")[0] + draw.choice([b" a 1 0", b" a 0 nan", b" zz 0 1"])
    else:
        path.unlink()
        return
    path.write_bytes(b"\n".join(lines))


TIDY = {
    "wav.scp": b"a x.wav\nab y z.wav\nb w.wav\n",
    "utt2spk": b"a a\nab a\nb b\n",
    "text": "a one two\nab \nb drei café\n".encode(),
    "utt2num_samples": b"a 5\nab 16000\nb 123\n",
    "segments": b"a b 0 1\nab b 1 2\nb a 0.5 -1\n",
}


@pytest.mark.parametrize("block_bytes", [1, 9, 1 << 20])
@pytest.mark.parametrize(
    "old, new, tables",
    [
        (b"b ", b"b ", TIDY),  # nothing
        (b"\nb ", b"\nB ", TIDY),  # out of order, in every table alike
        (b"\nb ", b"\na ", TIDY),  # twice, in every table alike
        (b"\nab ", b"\na ", TIDY),
        (b"\nb ", b"\nb\0 ", TIDY),  # in order
        (b"\nab ", b"\na\0 ", TIDY),  # in order
        (b"\nab ", b"\na\0 ", ["text"]),  # another id, and in order
        (b"a ", b"a\0 ", ["utt2spk"]),
        (b"\nb ", b"\nb\0 ", ["utt2num_samples"]),
        (b"\nb ", b" 7\nb ", ["text", "utt2num_samples"]),
        (b" 5\n", b" 0\n", ["utt2num_samples"]),
        (b" 5\n", b" 00\n", ["utt2num_samples"]),
        (b" 5\n", b"\n", ["utt2num_samples"]),
        (b" 5\n", b" /\n", ["utt2num_samples"]),
        (b" 5\n", b" :\n", ["utt2num_samples"]),
        (b" 5\n", b" " + b"9" * 18 + b"\n", ["utt2num_samples"]),
        (b" 5\n", b" " + b"9" * 19 + b"\n", ["utt2num_samples"]),
        (b" 5\n", b" 1" + b"0" * 30 + b"\n", ["utt2num_samples"]),
        (b" 5\n", b" " + b"0" * 30 + b"1\n", ["utt2num_samples"]),
        (b" 5\n", b" 5 \t\n", ["utt2num_samples"]),
        (b"a ", b"a\t", TIDY),
        (b"\nab ", b"\n \tab\t ", TIDY),
        (b"two", b"tw\xf6", ["text"]),
        (b"two", b"two\r", ["text"]),
        (b"x.wav", b"\xc3.wav", ["wav.scp"]),
        (b"\nab ", b"\n\nab ", ["text"]),
        (b"\nab ", b"\n \t\nab ", ["utt2spk"]),
        (b"\nb ", b"\nba\nb ", ["wav.scp"]),
        *((TIDY[name][TIDY[name].index(b"\nb") :], b"\n", [name]) for name in TIDY),
        *((TIDY[name], b"", [name]) for name in TIDY),
        *((TIDY[name][:-1], TIDY[name] + b"c 1\n", [name]) for name in TIDY),
        (b"b 1 2", b"c 1 2", ["segments"]),
        (b"b 1 2", b"b 2 1", ["segments"]),
        *((b"a", b"a" * size, TIDY) for size in (255, 256, 257, 5000)),
    ],
)
def test_small_changes_read_as_by_a_plain_reader(tmp_path, old, new, tables, block_bytes):
    for has_segments in (False, True):
        for name, content in TIDY.items():
            content = content.replace(old, new) if name in tables else content
            (tmp_path / name).write_bytes(content)
        if not has_segments:
            (tmp_path / "segments").unlink()
        expected = outcome(read_plainly, tmp_path, need_text=True)
        found = outcome(read_data_dir, tmp_path, need_text=True, block_bytes=block_bytes)
        assert found == expected


@pytest.mark.parametrize("seed", range(4))
def test_random_folders_read_as_by_a_plain_reader(tmp_path, seed):
    draw = random.Random(seed)
    kinds = {str: 0, list: 0}
    for _ in range(24):
        folder = tmp_path / "d"
        folder.mkdir()
        random_folder(folder, draw)
        for _ in range(draw.choice([0, 0, 1, 1, 2])):
            spoil(folder, draw)
        options = {"need_text": draw.random() < 0.5}
        expected = outcome(read_plainly, folder, **options)
        block_bytes = draw.choice([1, 5, 40, 1 << 20])
        assert outcome(read_data_dir, folder, block_bytes=block_bytes, **options) == expected
        if isinstance(expected, list):
            table = read_data_dir(folder, **options)
            assert [table[i] for i in range(len(table))] == expected
            counts = [utterance.num_samples for utterance in expected]
            assert counts[0] is None or table.num_samples.tolist() == counts
            assert table.has_text == (expected[0].text is not None)
        kinds[type(expected)] += 1
        shutil.rmtree(folder)
    assert min(kinds.values()) > 4


def rows(count: int, *, name: str = "a", text: str | None = "some words") -> list[Utterance]:
    return [
        Utterance(f"{name}-{i:05}", f"{i}.wav", None, None, text, name, 100 + i)
        for i in range(count)
    ]


@pytest.fixture
def folder(tmp_path) -> Path:
    write_data_dir(tmp_path / "d", rows(1100))
    return tmp_path / "d"


@pytest.mark.parametrize("block_bytes", [1, 19, 4096, 1 << 20])
def test_a_tidy_folder_needs_no_second_look(folder, block_bytes, monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("read line by line")

    monkeypatch.setattr(data_dir, "_check_line_by_line", refuse)
    monkeypatch.setattr(data_dir, "parse_count", refuse)
    expected = rows(1100)
    if block_bytes < 100:  # ids and counts of many widths
        expected = [replace(rows(1)[0], id="a" * n, num_samples=9**n) for n in range(1, 19)]
    write_data_dir(folder, expected)
    text = (folder / "text").read_text()
    for blank in (" ", "\t", " \t "):
        (folder / "text").write_text(text.replace(" ", blank))
        assert read_data_dir(folder, block_bytes=block_bytes) == expected


def test_a_table_is_a_sequence(folder):
    table, expected = read_data_dir(folder), rows(1100)
    assert isinstance(table, UtteranceTable)
    assert (
        len(table) == 1100 and list(table) == expected and list(reversed(table)) == expected[::-1]
    )
    assert (
        table[0] == expected[0] and table[-1] == expected[-1] and table[np.int64(7)] == expected[7]
    )
    for part in (slice(2, 9, 3), slice(None, 4), slice(-2, None), slice(5, 2), slice(9, 3, -2)):
        assert table[part] == expected[part]
    for index in (1100, -1101):
        with pytest.raises(IndexError, match=f"utterance {index} of 1100"):
            table[index]
    assert expected[5] in table and table.index(expected[20]) == 20
    assert table != expected[:-1] and table == read_data_dir(folder)
    assert repr(table) == f"UtteranceTable({expected!r})"  # decoding compares sets by it


def test_joined_tables_follow_each_other(tmp_path):
    parts = [rows(3), rows(1, name="b"), rows(2, name="A")]
    for number, part in enumerate(parts):
        write_data_dir(tmp_path / str(number), part)
    joined = join_tables([read_data_dir(tmp_path / str(number)) for number in range(3)])
    expected = list(itertools.chain(*parts))
    assert joined == expected and [joined[i] for i in range(6)] == expected
    assert joined[-1] == expected[-1] and joined[2:5] == expected[2:5]
    assert joined.num_samples.tolist() == [100, 101, 102, 100, 100, 101] and joined.has_text
    assert join_tables([joined, joined]) == expected * 2
    assert len(join_tables([])) == 0

    (tmp_path / "1/utt2num_samples").unlink()
    (tmp_path / "2/text").unlink()
    tables = [read_data_dir(tmp_path / str(number), need_text=False) for number in range(3)]
    joined = join_tables(tables)
    assert joined.num_samples is None and not joined.has_text
    assert [u.num_samples for u in joined] == [100, 101, 102, None, 100, 101]


def test_a_replaced_or_deleted_folder_is_read_on_as_it_was(folder):
    table = read_data_dir(folder)
    write_data_dir(folder, rows(5, name="b", text="other"))
    assert table == rows(1100)
    shutil.rmtree(folder)
    assert table[1099] == rows(1100)[1099]


@pytest.mark.parametrize("name", ["wav.scp", "text", "utt2spk"])
@pytest.mark.parametrize("edit", ["cut", "shifted", "not text", "other value"])
def test_a_table_edited_in_place_is_refused(folder, name, edit):
    table = read_data_dir(folder)
    raw = (folder / name).read_bytes()
    changed = {"cut": raw[: len(raw) // 2], "shifted": b"\n" + raw, "not text": b"\xff" * len(raw)}
    changed["other value"] = raw.replace(b"1 ", b"1\t")  # every line where it was
    (folder / name).write_bytes(changed[edit])
    with pytest.raises(
        InputError, match=rf"{name}:1091: edited while it was being read.*run again"
    ):
        table[1090]


def test_recordings_of_segments_are_refused_when_edited_in_place(tmp_path):
    for name, content in TIDY.items():
        (tmp_path / name).write_bytes(content)
    table = read_data_dir(tmp_path)
    assert table[2].audio == "x.wav"
    (tmp_path / "wav.scp").write_bytes(TIDY["wav.scp"].replace(b"a x", b"a q"))
    with pytest.raises(InputError, match=r"wav\.scp:1: edited"):
        table[2]


def test_a_table_is_neither_copied_nor_sent(folder):
    """A copy would hold the number of a file that is closed, or another one, by then."""
    for do in (copy.copy, copy.deepcopy, pickle.dumps):
        table = read_data_dir(folder)
        with pytest.raises(TypeError, match="cannot be copied: read the folder again"):
            do(table._folders[0].speakers)
    with pytest.raises(TypeError, match="cannot be copied"):
        pickle.dumps(read_data_dir(folder))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits open files")
def test_too_many_open_files_are_named(folder):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 8, hard))
    try:
        with pytest.raises(InputError, match=r"Too many open files; join .* ulimit -n 4096"):
            held += [read_data_dir(folder) for _ in range(9)]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert read_data_dir(folder)[0].id == "a-00000"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
def test_files_are_closed_with_the_last_table(folder):
    def opened() -> int:
        gc.collect()
        return len(os.listdir("/proc/self/fd"))

    before = opened()
    table = read_data_dir(folder)
    joined = join_tables([table])
    del table
    assert opened() == before + 3 and joined[0].id == "a-00000"
    del joined
    assert opened() == before
    (folder / "text").write_bytes(b"a\n\nb\n")
    with pytest.raises(InputError, match="text:2: empty line"):
        read_data_dir(folder)
    assert opened() == before


def test_threads_share_a_table(folder):
    table, expected = read_data_dir(folder), rows(1100)
    places = np.random.default_rng(0).integers(0, 1100, 1000).tolist()
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(table.__getitem__, places)) == [expected[i] for i in places]


def test_memory_does_not_grow_with_the_texts(tmp_path):
    count = 20_000
    ids = [f"a-{i:05}" for i in range(count)]
    values = {"wav.scp": "x" * 90, "utt2spk": "a", "text": "words " * 50, "utt2num_samples": "7"}
    for name, value in values.items():
        (tmp_path / name).write_text("".join(f"{key} {value}\n" for key in ids))
    tracemalloc.start()
    try:
        table = read_data_dir(tmp_path)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(table) == count
    assert held < 40 * count  # three offsets and a count of 8 bytes each
    assert peak < 40e6  # 40 bytes an utterance, ids while reading, and what a block needs
