"""Slurm's commands for a cluster of one machine: this file, copied under their names into a folder on PATH.

A job starts at once, or where a file `hold` lies in the folder, with `slurmd NUMBER`. NUMBER.state is Slurm's
word for it, NUMBER.pid its first process, which leads a process group.
"""

import os
import subprocess
import sys
from pathlib import Path

FOLDER = Path(sys.argv[0]).parent
NAMES = ("sbatch", "srun", "sacct", "squeue", "scontrol", "slurmd")


def sbatch(script):
    """Keep the script, and start the job."""
    if "refuse" in Path(script).read_text():
        sys.exit("sbatch: error: invalid partition specified: refuse\nsbatch: error: Batch job submission failed")
    number = str(101 + len(list(FOLDER.glob("*.sh"))))
    (FOLDER / f"{number}.sh").write_text(Path(script).read_text())
    write_state(number, "PENDING")
    if not (FOLDER / "hold").exists():
        quiet = subprocess.DEVNULL
        subprocess.Popen([FOLDER / "slurmd", number], stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True)
    print(f"Submitted batch job {number}")


def slurmd(number):
    """Run a job's script, and again as often as it is requeued."""
    restarts, requeued = 0, FOLDER / f"{number}.requeued"
    while True:
        write_state(number, "RUNNING")
        variables = {"SLURM_JOB_ID": number, "SLURM_RESTART_COUNT": str(restarts)}
        code = subprocess.call(["sh", FOLDER / f"{number}.sh"], env=os.environ | variables)
        if not requeued.exists():
            break
        requeued.unlink()
        restarts += 1
    if read_state(number) == "RUNNING":
        write_state(number, "FAILED" if code else "COMPLETED")


def scontrol(command, number):
    """Note that a job is to run again."""
    if command != "requeue" or read_state(number) != "RUNNING":
        sys.exit("Requested operation is presently disabled")
    (FOLDER / f"{number}.requeued").touch()


def srun(*arguments):
    """Become the script's command, in a group of its own."""
    arguments, number = list(arguments), os.environ["SLURM_JOB_ID"]
    for streams, option in (((1, 2), "--output"), ((2,), "--error")):
        if option in arguments:
            at = arguments.index(option)
            path = arguments[at + 1].replace("%j", number).replace("%t", "0")
            del arguments[at : at + 2]
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            for stream in streams:
                os.dup2(file, stream)
    command = [argument for argument in arguments if not argument.startswith("--")]
    os.setsid()
    (FOLDER / f"{number}.pid").write_text(str(os.getpid()))
    os.execvp(command[0], command)


def sacct(*arguments):
    """Each job's state."""
    if (FOLDER / "no-accounts").exists():
        sys.exit("Slurm accounting storage is disabled")
    print("JobID|State|NodeList")
    for number in arguments:
        if (FOLDER / f"{number}.state").exists():
            print(f"{number}|{read_state(number)}|node")


def squeue(*arguments):
    """The job, where it has not ended; that this was said is noted."""
    number = arguments[-1].removeprefix("--jobs=")
    if read_state(number) not in ("PENDING", "RUNNING"):
        sys.exit("slurm_load_jobs error: Invalid job id specified")
    print(number)
    (FOLDER / "in-queue").touch()


def read_state(number):
    return (FOLDER / f"{number}.state").read_text()


def write_state(number, word):
    partial = FOLDER / f"{number}.state.{os.getpid()}"
    partial.write_text(word)
    partial.replace(FOLDER / f"{number}.state")


if __name__ == "__main__":
    globals()[Path(sys.argv[0]).name](*sys.argv[1:])
