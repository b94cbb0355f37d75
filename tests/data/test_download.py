"""Downloads from a server on this machine, and archives with faults and traps."""

import gzip
import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from espnet_lite.data.download import fetch, unpack
from espnet_lite.errors import InputError
from espnet_lite.locks import folder_lock

BODY = bytes(range(256)) * 4
SHA256 = hashlib.sha256(BODY).hexdigest()
MD5 = hashlib.md5(BODY).hexdigest()


def get(server, folder: Path, **options) -> Path:
    """Fetch corpus.tar.gz of the server into `folder`."""
    archive = folder / "got.tar.gz"
    url = f"{server.url}/corpus.tar.gz"
    fetch(url, archive, otherwise="say --corpus DIR", pause_seconds=0, **options)
    return archive


@pytest.fixture
def server(file_server):
    file_server.files["corpus.tar.gz"] = BODY
    return file_server


def ranges(server) -> list[str | None]:
    return [wanted for _, wanted in server.requests]


def test_whole_file_with_its_checksums(tmp_path, server):
    archive = get(server, tmp_path / "new", sha256=SHA256, md5=MD5, size_bytes=len(BODY))

    assert archive.read_bytes() == BODY
    assert [path.name for path in archive.parent.iterdir()] == ["got.tar.gz"]


def test_broken_transfer_is_continued(tmp_path, server):
    server.breaks = [100, 200]

    archive = get(server, tmp_path, sha256=SHA256)

    assert ranges(server) == [None, "bytes=100-", "bytes=300-"]
    assert archive.read_bytes() == BODY
    assert [path.name for path in tmp_path.iterdir()] == ["got.tar.gz"]


def test_server_without_ranges_sends_it_anew(tmp_path, server):
    server.breaks = [100]
    server.has_ranges = False

    assert get(server, tmp_path).read_bytes() == BODY
    assert ranges(server) == [None, "bytes=100-"]


def test_server_that_sends_another_part(tmp_path, server):
    """Its bytes would stand at the wrong place, and AN4's archive has no published checksum."""
    server.breaks = [100]
    server.lies = True

    assert get(server, tmp_path).read_bytes() == BODY
    assert ranges(server) == [None, "bytes=100-", None]


def test_server_that_sends_a_range_in_parts(tmp_path, server):
    server.breaks = [100]
    server.range_bytes = 600

    assert get(server, tmp_path).read_bytes() == BODY
    assert ranges(server) == [None, "bytes=100-", "bytes=700-"]


def test_an_answer_without_a_file(tmp_path, server):
    server.answers = [204, 204, 204]

    with pytest.raises(InputError, match="failed 3 times, last: 204 No Content"):
        get(server, tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_transfer_that_keeps_breaking_is_continued_by_the_next_call(tmp_path, server):
    server.breaks = [100, 100, 100]

    with pytest.raises(
        InputError, match=r"failed 3 times, last: 300 of 1024 bytes came.*say --corpus DIR"
    ):
        get(server, tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == [".got.tar.gz.part"]
    assert get(server, tmp_path, md5=MD5).read_bytes() == BODY
    assert ranges(server)[-1] == "bytes=300-"


@pytest.mark.parametrize("size_bytes", [None, len(BODY)])
def test_complete_part_of_a_killed_run_is_taken(tmp_path, server, size_bytes):
    (tmp_path / ".got.tar.gz.part").write_bytes(BODY)

    assert get(server, tmp_path, sha256=SHA256, size_bytes=size_bytes).read_bytes() == BODY
    assert ranges(server) == ([f"bytes={len(BODY)}-"] if size_bytes is None else [])


def test_part_longer_than_the_file_is_fetched_anew(tmp_path, server):
    (tmp_path / ".got.tar.gz.part").write_bytes(bytes(2000))

    assert get(server, tmp_path, sha256=SHA256).read_bytes() == BODY
    assert ranges(server) == ["bytes=2000-", None]


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        ({"sha256": "0" * 64}, f"sha256 {SHA256}, expected {'0' * 64}"),
        ({"md5": "1" * 32}, f"md5 {MD5}, expected {'1' * 32}"),
        ({"size_bytes": 1000, "md5": MD5}, "1024 bytes, expected 1000"),
        ({"size_bytes": 2000}, "1024 bytes, expected 2000"),
    ],
)
def test_another_file_is_one_line_and_removed(tmp_path, server, expected, message):
    with pytest.raises(InputError) as caught:
        get(server, tmp_path, **expected)

    assert str(caught.value) == (
        f"{server.url}/corpus.tar.gz: another file than expected: {message}; it has been removed; "
        "run again to fetch it anew, or say --corpus DIR"
    )
    assert list(tmp_path.iterdir()) == []


def test_busy_server_is_asked_again(tmp_path, server):
    server.answers = [503, 429]

    assert get(server, tmp_path).read_bytes() == BODY
    assert len(server.requests) == 3


def test_server_that_stays_busy(tmp_path, server):
    server.answers = [503, 503, 500]

    with pytest.raises(InputError, match="failed 3 times, last: 500 Internal Server Error"):
        get(server, tmp_path)


def test_refusal_is_not_asked_again(tmp_path, server):
    del server.files["corpus.tar.gz"]

    with pytest.raises(InputError, match="the server answers 404 Not Found; say --corpus DIR"):
        get(server, tmp_path)

    assert len(server.requests) == 1
    assert list(tmp_path.iterdir()) == []


def test_nobody_answers(tmp_path, server):
    server.url = "http://127.0.0.1:1"

    with pytest.raises(InputError, match=r"127\.0\.0\.1:1.*failed 3 times, last: .*refused"):
        get(server, tmp_path)


@pytest.mark.parametrize(
    "url", ["openslr", "file:///etc", "ftp://a.org", "http://[::1", "http://a/ä"]
)
def test_no_address(tmp_path, server, url):
    server.url = url

    with pytest.raises(InputError, match=r"expected .* like https://…") as caught:
        get(server, tmp_path)

    assert str(caught.value).startswith(f"{url}/corpus.tar.gz: ")


def test_disk_without_room_is_named_before_the_transfer(tmp_path, server, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("espnet_lite.data.download.shutil.disk_usage", lambda folder: usage)

    with pytest.raises(InputError, match=r"0\.0 MB to come, 0\.0 MB free; free space"):
        get(server, tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_two_runs_do_not_write_one_part(tmp_path, server):
    with folder_lock(tmp_path / "got.tar.gz"), pytest.raises(InputError, match="in use by process"):
        get(server, tmp_path)

    assert server.requests == []


def member(
    name: str, kind: bytes = tarfile.REGTYPE, target: str = "", content: bytes = b""
) -> tuple[tarfile.TarInfo, bytes]:
    """Return one entry of an archive."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, target, len(content)
    return info, content


def pack(archive: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    """Write an archive of the members as they are."""
    with tarfile.open(archive, "w:gz") as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return archive


def files_below(folder: Path) -> dict[str, str]:
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_text() for path in found}


def test_the_top_folder_takes_the_name_asked_for(tmp_path):
    archive = pack(
        tmp_path / "a.tar.gz",
        member("./an4", tarfile.DIRTYPE),
        member("./an4/etc/ids", content=b"one"),
        member("./an4/empty", tarfile.DIRTYPE),
        member("./an4/README", content=b"two"),
    )

    unpack(archive, tmp_path / "deep" / "corpus", otherwise="-")

    assert files_below(tmp_path / "deep") == {"corpus/README": "two", "corpus/etc/ids": "one"}
    assert (tmp_path / "deep/corpus/empty").is_dir()


def test_an_inner_folder_is_taken_alone(tmp_path):
    archive = pack(
        tmp_path / "a.tar.gz",
        member("LibriSpeech/LICENSE.TXT", content=b"licence"),
        member("LibriSpeech/dev-clean/84/1/84-1.trans.txt", content=b"84-1-0 A"),
        member("LibriSpeech/dev-clean-2/85/1/85-1.trans.txt", content=b"85-1-0 B"),
    )
    there = tmp_path / "LibriSpeech"
    (there / "test-clean").mkdir(parents=True)

    unpack(archive, there / "dev-clean", inner="LibriSpeech/dev-clean", otherwise="-")

    assert files_below(there) == {"dev-clean/84/1/84-1.trans.txt": "84-1-0 A"}
    assert (there / "test-clean").is_dir()


def test_archive_of_something_else(tmp_path):
    archive = pack(tmp_path / "a.tar.gz", member("LibriSpeech/dev-other/84/1/x", content=b"x"))

    with pytest.raises(InputError, match="no files in LibriSpeech/dev-clean; remove the archive"):
        unpack(archive, tmp_path / "out", inner="LibriSpeech/dev-clean", otherwise="-")

    assert [path.name for path in tmp_path.iterdir()] == ["a.tar.gz"]


def whole_archive(folder: Path) -> bytes:
    content = bytes((7 * i * i) % 251 for i in range(5000))
    return pack(folder / "whole.tar.gz", member("an4/data", content=content)).read_bytes()


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: raw[: len(raw) // 2],
        lambda raw: raw[:-1],  # all files are there; gzip's trailer is not
        lambda raw: raw[:-8] + bytes(8),
        lambda raw: raw[:200] + bytes([raw[200] ^ 1]) + raw[201:],
        lambda raw: b"",
        lambda raw: b"<html>moved</html>",
        lambda raw: gzip.compress(b"no tar archive" * 100),
    ],
    ids=["half", "last byte", "checksum", "flipped bit", "empty", "page", "not tar"],
)
def test_broken_archive_is_removed(tmp_path, damage):
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(damage(whole_archive(tmp_path)))
    (tmp_path / "whole.tar.gz").unlink()

    with pytest.raises(
        InputError, match=r"a\.tar\.gz: not a whole \.tar\.gz archive.*--corpus DIR"
    ):
        unpack(archive, tmp_path / "out", otherwise="say --corpus DIR")

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "trap",
    [
        member("an4/../../outside", content=b"x"),
        member("/absolute", content=b"x"),
        member("an4/link", tarfile.SYMTYPE, "/etc/passwd"),
        member("an4/link", tarfile.LNKTYPE, "an4/other"),
        member("an4/device", tarfile.CHRTYPE),
        member("an4/pipe", tarfile.FIFOTYPE),
        member("top", content=b"x"),
    ],
    ids=["dots", "absolute", "symlink", "hardlink", "device", "pipe", "top"],
)
@pytest.mark.parametrize("inner", [None, "an4/inner"])
def test_archive_with_a_trap_is_refused_as_a_whole(tmp_path, trap, inner):
    good = member("an4/inner/good", content=b"good")
    archive = pack(tmp_path / "trap.tar.gz", good, trap)

    with pytest.raises(InputError, match=f"member '{trap[0].name}' is a link"):
        unpack(archive, tmp_path / "out", inner=inner, otherwise="-")

    assert [path.name for path in tmp_path.iterdir()] == ["trap.tar.gz"]


@pytest.mark.parametrize(
    ("trap", "message"),
    [
        (member("an4/good/below", content=b"x"), "member 'an4/good/below': File exists"),
        (member("an4/folder", content=b"x"), "member 'an4/folder': Is a directory"),
        (member("an4/" + "n" * 300, content=b"x"), "File name too long"),
    ],
    ids=["file as folder", "folder as file", "long name"],
)
def test_members_that_cannot_stand_together(tmp_path, trap, message):
    good = member("an4/good", content=b"good"), member("an4/folder/a", content=b"a")
    archive = pack(tmp_path / "trap.tar.gz", *good, trap)

    with pytest.raises(InputError, match=rf"trap\.tar\.gz: .*{message}.*this is not the corpus"):
        unpack(archive, tmp_path / "out", otherwise="-")

    assert [path.name for path in tmp_path.iterdir()] == ["trap.tar.gz"]


def test_member_larger_than_the_disk(tmp_path):
    """By its header alone, as in a bomb; nothing is written."""
    header = tarfile.TarInfo("an4/huge")
    header.size = 10**15
    (tmp_path / "bomb.tar.gz").write_bytes(gzip.compress(header.tobuf(tarfile.GNU_FORMAT)))

    with pytest.raises(InputError, match=r"member 'an4/huge' of 1000000000\.0 MB, [\d.]+ MB free"):
        unpack(tmp_path / "bomb.tar.gz", tmp_path / "out", otherwise="-")

    assert [path.name for path in tmp_path.iterdir()] == ["bomb.tar.gz"]


def test_member_with_holes_is_refused(tmp_path):
    hole = tarfile.TarInfo("an4/holes")
    hole.size = 1
    hole.pax_headers = {"GNU.sparse.map": "0,1", "GNU.sparse.size": str(10**13)}
    archive = pack(tmp_path / "trap.tar.gz", (hole, b"x"))

    with pytest.raises(InputError, match="member 'an4/holes' is a link, a device or"):
        unpack(archive, tmp_path / "out", otherwise="-")
