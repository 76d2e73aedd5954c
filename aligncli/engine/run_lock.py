"""One training a run folder: who trains in it holds a lock, which the system takes back when the process ends."""

from __future__ import annotations

import errno
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager

from aligncli.engine.disk import remove_litter
from aligncli.engine.run_folder import RunFolder
from aligncli.errors import CheckpointError

try:
    import fcntl
except ImportError:  # Windows, where nothing keeps a second training out
    fcntl = None

HELD = (errno.EACCES, errno.EAGAIN)  # fcntl(2), F_SETLK; by other errors a file system says that it has no locks


@contextmanager
def only_training(run: RunFolder) -> Iterator[None]:
    """Keep other trainings out of the folder, which is made if it is new; remove what a killed one left half written.

    A record lock and not flock(2): network drives know it, and a data worker that outlives its killed training does
    not hold it on. Raises CheckpointError, which names the other process, where one trains there.
    """
    run.root.mkdir(parents=True, exist_ok=True)
    with run.lock_path.open("a+", encoding="utf-8") as file:
        if fcntl is not None:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in HELD:
                    file.seek(0)
                    raise CheckpointError(
                        f"{run.root}: {file.read().strip() or 'another process'} trains there: follow it with "
                        f"`aligncli watch`, stop it, or choose another folder"
                    ) from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}\n")
        file.flush()
        remove_litter(run.root)
        yield
