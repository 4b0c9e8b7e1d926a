"""What a finished command is to a client of SWE-ReX: an answer, or an exception that it raises.

Owns the wording, which is SWE-ReX' own where clients may look at it. Nothing is made up: a command of which
no exit code is known has none.
"""

import re
from dataclasses import dataclass

from gateway.compat import swerex_faults as faults
from gateway.compat.shell_gate import CWD_MARK, NOT_BEGUN, SYNTAX_MARK
from gateway.compat.swerex_protocol import BashAction, Execute, Executed, Observation
from gateway.exec_record import Exec
from gateway.protocol import ExecState

PROMPT = "SHELLPS1PREFIX"
"""What SWE-ReX waits for to know that a shell is back; said to have been met whenever a command is over."""
_CONTROL = re.compile(r"\x1B[@-_][0-?]*[ -/]*[@-~]")


@dataclass(frozen=True, slots=True)
class Output:
    stdout: bytes
    stderr: bytes = b""

    def mark(self, record: Exec, mark: bytes) -> str | None:
        """What the gate said of a command that it did not begin."""
        if record.exit_code == NOT_BEGUN and self.stdout.startswith(mark):
            return text_of(self.stdout.removeprefix(mark))
        return None


def text_of(data: bytes) -> str:
    return data.decode(errors="backslashreplace")


def shown(data: bytes) -> str:
    """As SWE-ReX shows what a terminal got."""
    return _CONTROL.sub("", text_of(data)).replace("\r\n", "\n")


def observation(action: BashAction, record: Exec, output: Output) -> Observation:
    """Raises SwerexFault."""
    if (said := output.mark(record, SYNTAX_MARK)) is not None:
        message = (
            f"Error (exit code {NOT_BEGUN}) while checking bash command \n{action.command!r}\n"
            f"---- Stderr ----\n{said}\n---- Stdout ----\n"
        )
        raise faults.bad_syntax(message, said)
    text = shown(output.stdout)
    if record.state is ExecState.TIMED_OUT:
        asked = "the gateway's limit of" if action.timeout is None else f"{action.timeout}"
        message = f"timeout after {asked} seconds while running command {action.command!r}"
        raise faults.timed_out(message, output=text, exec_id=record.id)
    exit_code = None if action.check == "ignore" else exit_code_of(record, output=text)
    if action.check == "raise" and exit_code != 0:
        message = (
            f"Command {action.command!r} failed with exit code {exit_code}. Here is the output:\n{text!r}"
        )
        raise faults.non_zero(_prefixed(action.error_msg, message), output=text, exec_id=record.id)
    return Observation(text, exit_code, failure_reason(record), PROMPT)


def executed(command: Execute, record: Exec, output: Output) -> Executed:
    """Raises SwerexFault."""
    if (said := output.mark(record, CWD_MARK)) is not None:
        raise faults.no_file(command.cwd or said)
    if (said := output.mark(record, SYNTAX_MARK)) is not None:
        output = Output(b"", said.encode())
    stdout, stderr = text_of(output.stdout), text_of(output.stderr)
    if record.state is ExecState.TIMED_OUT:
        message = f"Timeout ({command.timeout}s) exceeded while running command"
        raise faults.timed_out(message, stdout=stdout, stderr=stderr, exec_id=record.id)
    exit_code = exit_code_of(record, stdout=stdout, stderr=stderr)
    if command.check and exit_code != 0:
        message = (
            f"Command {command.command!r} failed with exit code {exit_code}. "
            f"Stdout:\n{stdout!r}\nStderr:\n{stderr!r}"
        )
        raise faults.non_zero(_prefixed(command.error_msg, message), stdout=stdout, stderr=stderr)
    return Executed(stdout, stderr, exit_code)


def exit_code_of(record: Exec, **output: str) -> int:
    if record.exit_code is None:
        reason = record.reason or "how it ended is not known"
        raise faults.no_exit_code(f"the command was started and is {record.state.value}: {reason}", **output)
    return record.exit_code


def failure_reason(record: Exec) -> str:
    """Empty for a command that ended by itself."""
    if record.state is ExecState.EXITED:
        return ""
    return record.state.value if record.reason is None else f"{record.state.value}: {record.reason}"


def _prefixed(error_msg: str, message: str) -> str:
    return f"{error_msg}: {message}" if error_msg else message
