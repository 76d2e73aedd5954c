"""Workers of pytest-xdist share the machine's cores instead of each taking all of them; no test has a network."""

import os
import signal
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import torch

WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if WORKERS > 1:
    torch.set_num_threads(max(1, torch.get_num_threads() // WORKERS))
    os.environ["OMP_NUM_THREADS"] = str(torch.get_num_threads())  # of the processes that tests start
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell's background job, whose children inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def no_network() -> Iterator[None]:
    """Only this machine can be reached from a test; a look-up of any other name fails too."""
    connect, look_up = socket.socket.connect, socket.getaddrinfo

    def connect_here(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_here(address[0]):
            raise AssertionError(f"a test tried to reach {address}")
        connect(self, address)

    def look_up_here(host: Any, *arguments: Any, **options: Any) -> Any:
        if not _is_here(host):
            raise AssertionError(f"a test tried to look up {host!r}")
        return look_up(host, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", connect_here)
        patch.setattr(socket, "getaddrinfo", look_up_here)
        yield


def _is_here(host: object) -> bool:
    names = {None, "", "localhost", socket.gethostname(), "::1", "0.0.0.0", "::"}
    return host in names or str(host).startswith("127.")
