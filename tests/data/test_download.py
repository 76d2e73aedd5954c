"""COCO's archives from a server on this machine: cut off, resumed, damaged, hostile. Nothing else is reached."""

from __future__ import annotations

import hashlib
import io
import re
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from aligncli.data import download
from aligncli.data.download import Archive, get, missing, require_room
from aligncli.errors import DataError

NOBODY = lambda stage, done, total: None  # noqa: E731


class Server(ThreadingHTTPServer):
    """Serves `content` at every path; `cut` bytes into an answer it hangs up."""

    content = b""
    cut: int | None = None
    takes_ranges = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.ranges: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/zips/val2017.zip"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.ranges.append(asked)
        first = int(re.findall(r"\d+", asked)[0]) if asked and self.server.takes_ranges else 0
        rest = self.server.content[first:]
        self.send_response(206 if first else 200)
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        self.wfile.write(rest[: self.server.cut])

    def log_message(self, *arguments: object) -> None:
        """Tests print nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


def _zip(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


@pytest.fixture
def archive(server: Server) -> Archive:
    server.content = _zip(**{"val2017/": b"", "val2017/1.jpg": b"one" * 5000, "val2017/2.jpg": b"two" * 5000})
    digest = hashlib.md5(server.content).hexdigest()
    return Archive(server.url, len(server.content), digest, "val2017", 30_000)


def test_an_archive_becomes_its_folder_and_leaves_nothing_else(archive: Archive, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    get(archive, tmp_path / "coco", lambda *progress: told.append(progress))
    assert (tmp_path / "coco" / "val2017" / "2.jpg").read_bytes() == b"two" * 5000
    assert [path.name for path in (tmp_path / "coco").iterdir()] == ["val2017"]
    assert {stage for stage, _, _ in told} == {f"{verb} val2017.zip" for verb in ("fetching", "checking", "unpacking")}
    assert missing([archive], tmp_path / "coco") == []


def test_what_was_cut_off_goes_on_where_it_stopped(archive: Archive, server: Server, tmp_path: Path) -> None:
    server.cut = 1000
    for have in (1000, 2000):
        with pytest.raises(DataError, match=f"{have:,} of {archive.num_bytes:,} bytes are here .*goes on from there"):
            get(archive, tmp_path, NOBODY)
    server.cut = None
    get(archive, tmp_path, NOBODY)
    assert server.ranges == [None, "bytes=1000-", "bytes=2000-"]
    assert (tmp_path / "val2017" / "1.jpg").read_bytes() == b"one" * 5000


def test_a_server_without_ranges_sends_all_of_it_again(archive: Archive, server: Server, tmp_path: Path) -> None:
    (tmp_path / "val2017.zip.part").write_bytes(b"x" * 500)
    server.takes_ranges = False
    get(archive, tmp_path, NOBODY)
    assert (tmp_path / "val2017" / "1.jpg").is_file()


def test_a_whole_archive_is_not_fetched_again(archive: Archive, server: Server, tmp_path: Path) -> None:
    (tmp_path / "val2017.zip.part").write_bytes(server.content)
    get(archive, tmp_path, NOBODY)
    assert server.ranges == []


def test_a_damaged_archive_is_removed_and_nothing_unpacked(archive: Archive, server: Server, tmp_path: Path) -> None:
    server.content = server.content[:-9] + b"x" * 9
    with pytest.raises(DataError, match=f"damaged on its way .*not {archive.md5}"):
        get(archive, tmp_path, NOBODY)
    assert list(tmp_path.iterdir()) == []


def test_another_file_of_that_name_is_not_fetched(archive: Archive, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="this is not COCO's file"):
        get(replace(archive, num_bytes=archive.num_bytes + 1), tmp_path, NOBODY)


def test_an_error_of_the_server_is_one_line(archive: Archive, server: Server, tmp_path: Path) -> None:
    server.shutdown()
    server.server_close()
    with pytest.raises(DataError, match=r"0 of .* bytes are here"):
        get(archive, tmp_path, NOBODY)


@pytest.mark.parametrize(
    "name", ["../evil.jpg", "/evil.jpg", "val2017/../../evil.jpg", "other/evil.jpg", "..\\evil.jpg"]
)
def test_no_member_leaves_the_folder(server: Server, tmp_path: Path, name: str) -> None:
    server.content = _zip(**{"val2017/1.jpg": b"one", name: b"evil"})
    archive = Archive(server.url, len(server.content), hashlib.md5(server.content).hexdigest(), "val2017", 100)
    with pytest.raises(DataError, match="expected plain files below val2017/"):
        get(archive, tmp_path / "coco", NOBODY)
    assert not list(tmp_path.rglob("*.jpg"))


def test_a_link_is_refused(server: Server, tmp_path: Path) -> None:
    link = zipfile.ZipInfo("val2017/link")
    link.external_attr = 0o120777 << 16
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        made.writestr(link, "/etc/passwd")
    server.content = file.getvalue()
    archive = Archive(server.url, len(server.content), hashlib.md5(server.content).hexdigest(), "val2017", 100)
    with pytest.raises(DataError, match="'val2017/link'"):
        get(archive, tmp_path, NOBODY)


def test_a_full_disk_is_found_before_the_first_byte(archive: Archive, server: Server, tmp_path: Path) -> None:
    huge = replace(archive, unpacked_bytes=10**18)
    with pytest.raises(DataError, match=r"needs 1000000000\.0 GB and its disk has .* GB free"):
        require_room([huge], tmp_path / "new" / "coco")
    require_room([archive], tmp_path / "new" / "coco")
    assert server.ranges == []
    assert not (tmp_path / "new").exists()


def test_room_is_counted_for_one_archive_beside_all_that_is_unpacked(archive: Archive, monkeypatch, tmp_path) -> None:
    usage = type("Usage", (), {"free": 0})
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: usage)
    needed = 2 * archive.unpacked_bytes + archive.num_bytes
    usage.free = needed
    require_room([archive, archive], tmp_path)
    usage.free = needed - 1
    with pytest.raises(DataError, match="make room"):
        require_room([archive, archive], tmp_path)
