"""What a process keeps of the memory that its tensors free."""

import platform
import subprocess
import sys

import pytest

from aligncli.engine.memory import keep_freed_memory

# Page faults of taking 64 MB again and again, once the free blocks of a young process are used up
COUNT_FAULTS = """
import resource
import sys

import torch

from aligncli.engine.memory import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()
for _ in range(30):
    torch.ones(16 << 20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    torch.ones(16 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def count_faults(how: str) -> int:
    command = [sys.executable, "-c", COUNT_FAULTS, how]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_freed_memory_is_taken_again_without_page_faults():
    assert count_faults("keep") < 100
    assert count_faults("give back") > 1000  # or there would be nothing to keep


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    assert not keep_freed_memory()
