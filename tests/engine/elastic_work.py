"""What processes do in test_elastic.py; imports little, so that they start soon."""

import os
import signal
import time
from pathlib import Path

from aligncli.environment import launched_place


def return_code_of_rank(codes: list[int]) -> int:
    """Each rank its own."""
    place = launched_place()
    assert place is not None
    return codes[place.rank]


def be_killed(starts: str) -> int:
    """As by the kernel when memory is short; a line in the file `starts` for each time."""
    with Path(starts).open("a") as file:
        file.write("started\n")
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


def ignore_signals(started: str) -> int:
    """A process that will not stop, and says so when it is there."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    Path(started).write_text(str(os.getpid()))
    time.sleep(600)
    return 0
