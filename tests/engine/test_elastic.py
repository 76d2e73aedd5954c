"""The launcher of several processes: their exit codes, their deaths, and who ends them."""

import os
import signal
import threading
import time

import pytest

from aligncli.engine.elastic import Processes, run_processes
from aligncli.engine.interrupt import SAME_SIGNAL_SECONDS
from aligncli.errors import TrainingError
from tests.engine import elastic_work as work

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="signals and sessions are POSIX's")]


def test_the_highest_exit_code_comes_out_and_starts_nothing_again():
    before = signal.getsignal(signal.SIGTERM)
    assert run_processes(Processes(per_machine=2), work.return_code_of_rank, [0, 143]) == 143
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_process_that_always_dies_ends_it_in_one_line_after_the_allowed_restarts(tmp_path):
    starts = tmp_path / "starts"
    with pytest.raises(TrainingError, match=r"process 0 ended by SIGKILL, and --max-restarts 1 is used up") as raised:
        run_processes(Processes(per_machine=1, max_restarts=1), work.be_killed, str(starts))
    assert starts.read_text() == "started\n" * 2
    assert "\n" not in str(raised.value)


def test_a_second_signal_kills_processes_that_do_not_stop(tmp_path):
    started = tmp_path / "started"

    def send_twice() -> None:
        while not started.exists() or not started.read_text():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(SAME_SIGNAL_SECONDS + 0.5)
        os.kill(os.getpid(), signal.SIGTERM)

    sender = threading.Thread(target=send_twice)
    sender.start()
    with pytest.raises(SystemExit) as end:
        run_processes(Processes(per_machine=1), work.ignore_signals, str(started))
    sender.join()
    assert end.value.code == 143
    with pytest.raises(ProcessLookupError):
        os.kill(int(started.read_text()), 0)
