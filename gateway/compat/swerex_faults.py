"""Failures as SWE-ReX tells them: the name of an exception class that the client has, and a message.

Owns which class is which failure. The client imports it by its path; a name that it lacks would be an error
of its own there.
"""

from gateway.compat.errors import NotRun
from gateway.compat.swerex_protocol import ExceptionTransfer
from gateway.errors import Refusal

STATUS = 511
"""Of every failure that the client is to raise."""
_EXCEPTIONS = "swerex.exceptions"


class SwerexFault(Exception):
    def __init__(self, class_path: str, message: str, **extra_info: str) -> None:
        super().__init__(message)
        self.class_path = class_path
        self.message = message
        self.extra_info = extra_info
        """Becomes an attribute of that name of the exception that the client raises."""

    def transfer(self) -> ExceptionTransfer:
        return ExceptionTransfer(self.message, self.class_path, extra_info=self.extra_info)


def timed_out(message: str, **output: str) -> SwerexFault:
    return SwerexFault(f"{_EXCEPTIONS}.CommandTimeoutError", message, **output)


def non_zero(message: str, **output: str) -> SwerexFault:
    return SwerexFault(f"{_EXCEPTIONS}.NonZeroExitCodeError", message, **output)


def no_exit_code(message: str, **output: str) -> SwerexFault:
    return SwerexFault(f"{_EXCEPTIONS}.NoExitCodeError", message, **output)


def bad_syntax(message: str, said: str) -> SwerexFault:
    return SwerexFault(f"{_EXCEPTIONS}.BashIncorrectSyntaxError", message, bash_stdout="", bash_stderr=said)


def no_session(name: str) -> SwerexFault:
    return SwerexFault(f"{_EXCEPTIONS}.SessionDoesNotExistError", f"session {name!r} does not exist")


def session_exists(name: str) -> SwerexFault:
    return SwerexFault(f"{_EXCEPTIONS}.SessionExistsError", f"session {name!r} already exists")


def not_possible(message: str) -> SwerexFault:
    return SwerexFault(f"{_EXCEPTIONS}.SwerexException", message)


def bad_value(message: str) -> SwerexFault:
    return SwerexFault("builtins.ValueError", message)


def no_file(path: str) -> SwerexFault:
    return SwerexFault("builtins.FileNotFoundError", f"No such file or directory: {path!r}")


def is_directory(path: str) -> SwerexFault:
    return SwerexFault("builtins.IsADirectoryError", f"Is a directory: {path!r}")


def no_permission(path: str) -> SwerexFault:
    return SwerexFault("builtins.PermissionError", f"Permission denied: {path!r}")


def fault_of(error: Refusal | NotRun) -> SwerexFault:
    """A refusal of the gateway, which the client has no class of its own for."""
    if isinstance(error, NotRun):
        return not_possible(f"the command was not run: {error}")
    if error.status in (400, 413, 422):
        return bad_value(error.message)
    return not_possible(f"{error.code}: {error.message}")
