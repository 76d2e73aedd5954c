"""Errors that a user can cause and mend.

Each is one line that names the thing, says what was expected and how to fix it; the CLI prints it
and exits with code 2. Anything else that is raised is a bug in aligncli.
"""


class UserError(ValueError):
    """Base of every error that comes from input, not from our code."""


class RecipeError(UserError):
    """A recipe, or an override of one, is unknown or holds a value that is not allowed."""


class DataError(UserError):
    """A data set, an annotation file, a result file or an image cannot be used."""


class CheckpointError(UserError):
    """A run folder, a checkpoint or a weight file is missing, damaged or of another model."""


class DeviceError(UserError):
    """The requested device or precision does not exist on this machine."""


class TrainingError(UserError):
    """Training cannot go on, for example because the loss is no longer finite."""


class MissingChoice(UserError):
    """The command line lacks a choice that the user of a terminal is asked for.

    Args:
        option: what it follows, such as "--data"; of an argument its name in the usage line, such as "RUN".
    """

    def __init__(self, message: str, *, option: str) -> None:
        super().__init__(message)
        self.option = option


def first_line(error: BaseException) -> str:
    """The first line of a library's message, to be quoted in one of ours."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
