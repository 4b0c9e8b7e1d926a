"""What can go wrong before or during a run, in words that tell the user what to change.

Anything here ends as one line on stderr and a non-zero exit; it must never carry prompt text or keys.
"""


class LoadgenError(Exception):
    """The run cannot start or go on; the message says which input is wrong and what is allowed."""


class WorkloadError(LoadgenError):
    """A workload file does not say what a workload must say."""

    def __init__(self, problem: str, *, path: str, line: int | None = None, field: str | None = None) -> None:
        self.path, self.line, self.field, self.problem = path, line, field, problem
        where = path if line is None else f"{path}:{line}"
        super().__init__(f"{where}: {f'field {field!r}: ' if field else ''}{problem}")


class FieldError(Exception):
    """A value outside its range; a reader adds the file and the line to make a ``WorkloadError``."""

    def __init__(self, field: str, problem: str) -> None:
        self.field, self.problem = field, problem
        super().__init__(f"{field}: {problem}")
