"""The tools that MCP clients are offered: names, arguments, and the words that a model reads.

Owns types, bounds and descriptions. It must not know the SDK or how anything is done.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

MAX_WAIT_S = 45.0
"""Clients give up after 60 s unless they were told otherwise; a shell that still runs says so before."""
_OUTPUT_BYTES = 30_000
"""What agents' own shells show a model of one command."""

Wait = Annotated[float, Meta(ge=0, le=MAX_WAIT_S)]
Seconds = Annotated[float, Meta(gt=0, le=7 * 86400)]
ExecId = Annotated[str, Meta(max_length=64, description="As `shell` answered it.")]
Path = Annotated[str, Meta(min_length=1, max_length=4096, description="In the workspace.")]


class Shell(Struct, frozen=True, forbid_unknown_fields=True, tag_field="tool", tag="shell"):
    """Run a command with bash and return its exit code and output, stderr within stdout. If it takes longer
    than `wait_s`, it goes on in the background and `exec_id` is returned for shell_output, shell_status and
    shell_cancel."""

    command: Annotated[str, Meta(min_length=1)]
    cwd: Annotated[
        str | None, Meta(description="Relative to the workspace. Default: where the session begins.")
    ] = None
    timeout_s: Annotated[
        Seconds | None, Meta(description="End the command after so long. Counts from its start.")
    ] = None
    env: Annotated[dict[str, str], Meta(max_length=256)] = {}
    wait_s: Annotated[Wait, Meta(description="Answer at the latest after so long.")] = MAX_WAIT_S
    state: Annotated[
        Literal["none", "env_cwd"],
        Meta(
            description="env_cwd: begin with the directory and exported variables that the last such command"
            " left, and leave them to the next."
        ),
    ] = "none"
    max_output_bytes: Annotated[
        Annotated[int, Meta(ge=1000, le=1 << 20)],
        Meta(description="Of longer output the middle is left out; shell_output has all of it."),
    ] = _OUTPUT_BYTES


class ShellStatus(Struct, frozen=True, forbid_unknown_fields=True, tag_field="tool", tag="shell_status"):
    """Tell whether a command still runs, or how it ended."""

    exec_id: ExecId
    wait_s: Annotated[Wait, Meta(description="Wait so long for its end.")] = 0.0


class ShellOutput(Struct, frozen=True, forbid_unknown_fields=True, tag_field="tool", tag="shell_output"):
    """Read the output of a command from an offset on, also while it runs."""

    exec_id: ExecId
    offset: Annotated[int, Meta(ge=0, description="In bytes; `next_offset` of the answer before.")] = 0
    wait_s: Annotated[Wait, Meta(description="Wait so long for some output.")] = 0.0
    max_bytes: Annotated[int, Meta(ge=1, le=1 << 20)] = _OUTPUT_BYTES


class ShellCancel(Struct, frozen=True, forbid_unknown_fields=True, tag_field="tool", tag="shell_cancel"):
    """End a command, with all that it started."""

    exec_id: ExecId


class ReadFile(Struct, frozen=True, forbid_unknown_fields=True, tag_field="tool", tag="read_file"):
    """Read a text file."""

    path: Path
    offset: Annotated[int, Meta(ge=0, description="In bytes.")] = 0
    max_bytes: Annotated[int, Meta(ge=1, le=1 << 20)] = 1 << 18


class WriteFile(Struct, frozen=True, forbid_unknown_fields=True, tag_field="tool", tag="write_file"):
    """Write a text file, whole, with the directories on the way to it."""

    path: Path
    content: str
    mode: Annotated[
        Annotated[str, Meta(pattern="^[0-7]{3,4}$")] | None,
        Meta(description="Permissions, octal. Default: as before, else 644."),
    ] = None


Call = Shell | ShellStatus | ShellOutput | ShellCancel | ReadFile | WriteFile
TOOLS: tuple[type[Call], ...] = (Shell, ShellStatus, ShellOutput, ShellCancel, ReadFile, WriteFile)


def name_of(tool: type[Call]) -> str:
    return str(tool.__struct_config__.tag)


def description_of(tool: type[Call]) -> str:
    return " ".join((tool.__doc__ or "").split())


def schema_of(tool: type[Call]) -> dict[str, Any]:
    """Of the arguments."""
    _, components = msgspec.json.schema_components([tool])
    schema = components[tool.__name__]
    del schema["properties"]["tool"]
    schema["required"] = [name for name in schema["required"] if name != "tool"]
    del schema["description"]
    return {**schema, "additionalProperties": False}


def read_call(name: str, arguments: dict[str, Any]) -> Call:
    """Raises msgspec.ValidationError, which names the field."""
    found: Call = msgspec.convert({**arguments, "tool": name}, type=Call)
    return found
