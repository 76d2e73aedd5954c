"""How one of several processes leaves a training that does not end well. Imports no torch."""

from aligncli.errors import UserError

USER_FAULT = 2  # exit codes
LONE_FAULT = 1  # of a process that is to be started again with all others


class ToldFault(UserError):
    """A user's fault that ends every rank; this one tells it."""


class Elsewhere(Exception):
    """This rank leaves with all others, for a reason that another one tells."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(f"another process of this training ended it with exit code {exit_code}")
        self.exit_code = exit_code


class LoneFault(Exception):
    """A rank has failed that the others still wait for: it must die, so that its launcher ends them too."""
