"""Bodies of the SWE-ReX remote API, version 1.4.

Owns names and types. Fields that we do not know are left alone: a newer client may send more.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

Seconds = Annotated[float, Meta(ge=0)]
Name = Annotated[str, Meta(max_length=256)]


class CreateSession(Struct, frozen=True):
    session: Name = "default"
    session_type: Literal["bash"] = "bash"
    startup_source: Annotated[list[str], Meta(max_length=64)] = []
    startup_timeout: Seconds = 1.0


class SessionCreated(Struct, frozen=True):
    output: str = ""
    session_type: Literal["bash"] = "bash"


class BashAction(Struct, frozen=True, tag_field="action_type", tag="bash"):
    command: str
    session: Name = "default"
    timeout: Seconds | None = None
    is_interactive_command: bool = False
    is_interactive_quit: bool = False
    check: Literal["silent", "raise", "ignore"] = "raise"
    error_msg: str = ""
    expect: list[str] = []


class BashInterrupt(Struct, frozen=True, tag_field="action_type", tag="bash_interrupt"):
    session: Name = "default"
    timeout: Seconds = 0.2
    n_retry: Annotated[int, Meta(ge=1, le=100)] = 3
    expect: list[str] = []


Action = BashAction | BashInterrupt


class Observation(Struct, frozen=True):
    output: str = ""
    exit_code: int | None = None
    failure_reason: str = ""
    expect_string: str = ""
    session_type: Literal["bash"] = "bash"


class CloseSession(Struct, frozen=True):
    session: Name = "default"
    session_type: Literal["bash"] = "bash"


class SessionClosed(Struct, frozen=True):
    session_type: Literal["bash"] = "bash"


class Execute(Struct, frozen=True):
    command: str | list[str]
    timeout: Seconds | None = None
    shell: bool = False
    check: bool = False
    error_msg: str = ""
    env: dict[str, str] | None = None
    cwd: str | None = None
    merge_output_streams: bool = False


class Executed(Struct, frozen=True):
    stdout: str
    stderr: str
    exit_code: int | None


class ReadFile(Struct, frozen=True):
    path: str
    encoding: str | None = None
    errors: str | None = None


class FileContent(Struct, frozen=True):
    content: str


class WriteFile(Struct, frozen=True):
    path: str
    content: str


class Alive(Struct, frozen=True):
    is_alive: bool = True
    message: str = ""


class Hello(Struct, frozen=True):
    message: str


class Nothing(Struct, frozen=True):
    pass


class ExceptionTransfer(Struct, frozen=True):
    """The client imports ``class_path`` and raises it."""

    message: str
    class_path: str
    traceback: str = ""
    extra_info: dict[str, str] = field(default_factory=dict)


class Failed(Struct, frozen=True):
    swerexception: ExceptionTransfer


class Denied(Struct, frozen=True):
    detail: str
