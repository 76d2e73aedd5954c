"""Files are whole or as they were before, also where there is no room; the faults are real ones."""

import errno
import os
import resource
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from aligncli.engine import disk
from aligncli.engine.disk import MANIFEST, is_sound, remove_folder, remove_litter, write_file, write_folder
from aligncli.engine.run_folder import RunFolder, write_json
from aligncli.errors import CheckpointError, TrainingError
from tests.engine.processes import Process, names

LIMIT = 100_000  # bytes a file may have


def limited(function, path):
    """Run it in a process whose files may not grow beyond LIMIT; Python ignores SIGXFSZ, so writes fail with EFBIG."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, LIMIT))
    try:
        function(path)
    except TrainingError as error:
        print(error)
        sys.exit(2)


def too_large_file(path):
    write_file(path, b"n" * (LIMIT + 1))


def too_large_json(path):
    write_json(path, "n" * LIMIT)


def too_large_folder(path):
    write_folder(path.with_suffix(""), {"small": b"n", "large": b"n" * (LIMIT + 1)})


@pytest.mark.parametrize("write", [too_large_file, too_large_json, too_large_folder])
def test_a_file_size_limit_leaves_the_old_content_and_no_litter(tmp_path, write):
    home = tmp_path / "home"
    home.mkdir()
    write_file(home / "file.json", b"old")
    write_folder(home / "file", {"small": b"old", "large": b"old"})
    process = Process(partial(limited, write, home / "file.json"), tmp_path / "log")
    assert process.wait() == 2
    message = process.log.read_text()
    assert message.startswith(f"no room for {home / 'file'}")
    assert "100,0" in message or "100,1" in message  # the bytes of all that was to be written
    assert "File too large" in message
    assert (home / "file.json").read_bytes() == b"old"
    assert is_sound(home / "file", ("small", "large"))
    assert (home / "file" / "large").read_bytes() == b"old"
    assert names(home) == ["file", "file.json"]


FULL_DISK = """
import sys
from pathlib import Path
from aligncli.engine.disk import write_file, write_folder
from aligncli.errors import TrainingError
home = Path(sys.argv[1])
write_file(home / "old", b"o" * 300_000)
for write in (lambda: write_file(home / "old", b"n" * 900_000),
              lambda: write_folder(home / "new", {"a": b"n" * 500_000, "b": b"n" * 400_000})):
    try:
        write()
    except TrainingError as error:
        print(error)
    assert (home / "old").read_bytes() == b"o" * 300_000
    assert [path.name for path in home.iterdir()] == ["old"], list(home.iterdir())
"""


def test_a_full_disk_leaves_the_old_content_and_no_litter(tmp_path):
    script = 'mount -t tmpfs -o size=1m none "$0" && exec "$1" -c "$2" "$0"'
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c", script, tmp_path, sys.executable, FULL_DISK]
    try:
        subprocess.run([*command[:5], 'mount -t tmpfs none "$0"', tmp_path], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this machine lets nobody mount a small disk")
    ended = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert ended.returncode == 0, ended.stderr
    file, folder = ended.stdout.splitlines()
    assert file.startswith(f"no room for {tmp_path / 'old'}: 900,000 bytes are needed (No space left on device)")
    assert folder.startswith(f"no room for {tmp_path / 'new'}: 900,1")


@pytest.mark.parametrize("number", [errno.EDQUOT, errno.ENOSPC, errno.EFBIG])
def test_every_kind_of_no_room_is_told_with_the_bytes(tmp_path, monkeypatch, number):
    def full(descriptor):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(disk.os, "fsync", full)  # where a network disk tells of a quota
    with pytest.raises(TrainingError, match=r"no room for .*a: 3 bytes are needed"):
        write_file(tmp_path / "a", b"abc")
    assert not list(tmp_path.iterdir())


def test_other_faults_of_a_disk_are_what_they_are(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_file(tmp_path / "nowhere" / "a", b"abc")


WHOLE = {"iteration": 1, "text": "x" * (LIMIT - 100)}


def too_much_metrics(path):
    run = RunFolder(path)
    run.metrics_path.write_text("")
    run.append_metrics(WHOLE)
    run.append_metrics({"iteration": 2, "text": "y" * 200})


def test_a_line_of_metrics_that_finds_no_room_says_so_and_the_half_line_is_not_read(tmp_path):
    run = RunFolder(tmp_path)
    process = Process(partial(limited, too_much_metrics, tmp_path), tmp_path / "log")
    assert process.wait() == 2
    assert "no room for" in process.log.read_text()
    assert run.metrics_path.stat().st_size == LIMIT  # it does end in a half line
    assert run.read_metrics() == [WHOLE]


def test_a_damaged_line_of_metrics_is_not_passed_over(tmp_path):
    run = RunFolder(tmp_path)
    run.metrics_path.write_text('{"iteration": 1}\n{"iterat\n{"iteration": 3}\n')
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl, line 2 cannot be read"):
        run.read_metrics()


def test_the_manifest_is_what_sha256sum_checks(tmp_path):
    write_folder(tmp_path / "a", {"x": b"1", "y": b"2"})
    checked = subprocess.run(["sha256sum", "--check", MANIFEST], cwd=tmp_path / "a", capture_output=True, text=True)
    assert checked.stdout == "x: OK\ny: OK\n"


def test_litter_is_removed_and_a_folder_goes_as_a_whole(tmp_path):
    write_folder(tmp_path / "a", {"x": b"1"})
    for name in (".b.partial", ".c.removed"):
        write_folder(tmp_path / name, {"x": b"1"})
    (tmp_path / ".x.json.0a1b.tmp").write_bytes(b"half")
    remove_litter(tmp_path)
    assert names(tmp_path) == ["a"]
    remove_folder(tmp_path / "a")
    remove_folder(tmp_path / "a")  # it is gone already
    assert names(tmp_path) == []


@pytest.mark.slow
def test_several_writers_of_one_file_each_write_it_whole(tmp_path):
    """An evaluation by hand beside a training that evaluates."""
    path, contents = tmp_path / "results.json", [bytes([letter]) * 200_000 for letter in b"abc"]
    with ThreadPoolExecutor(len(contents) + 1) as pool:
        writers = [pool.submit(write_file, path, content) for _ in range(20) for content in contents]
        seen = set()
        while not all(writer.done() for writer in writers):
            seen |= {path.read_bytes()} if path.is_file() else set()
        for writer in writers:
            writer.result()
    assert seen <= set(contents)
    assert names(tmp_path) == ["results.json"]
