"""What the fields of a request may hold beyond their types: sizes, names, places.

Owns the bounds' wording. What can only be seen on a host, such as where a link leads, is looked at there.
"""

import base64
import binascii
import os
import posixpath
from collections.abc import Mapping

from gateway.errors import Refusal, invalid
from gateway.host_agent.wire import MARKER, OWNER
from gateway.limits import Limits
from gateway.protocol import ExecRequest, HostCapabilities, LimitsRequest, SessionRequest


def check_settings(settings: SessionRequest, limits: Limits) -> None:
    check_variables("env", settings.env, limits.max_env_bytes)
    if settings.cwd is not None:
        check_cwd(settings.cwd, allow_absolute=limits.allow_absolute_cwd)


def check_request(request: ExecRequest, limits: Limits, slots: float) -> None:
    """What needs neither the session nor its host's answer."""
    if request.cpu > slots:
        raise invalid("cpu", f"must be at most {slots:g}, which is all that its host has")
    if (timeout_s := request.timeout_s) is not None and timeout_s > limits.max_timeout_s:
        raise invalid("timeout_s", f"must be at most {limits.max_timeout_s:g}")
    if (max_bytes := request.output.max_bytes) is not None and max_bytes > limits.max_output_bytes:
        raise invalid("output.max_bytes", f"must be at most {limits.max_output_bytes}")
    if request.state == "env_cwd" and (request.command is None or not request.shell.startswith("bash")):
        raise invalid("state", "env_cwd needs `command` and a bash as `shell`")
    if request.tty is not None and request.output.merge:
        raise invalid("output.merge", "a terminal has one output already")


def check_argv(param: str, argv: tuple[str, ...], limits: Limits) -> None:
    check_size(param, sum(len(os.fsencode(word)) for word in argv), limits.max_command_bytes)
    if any("\0" in word for word in argv):
        raise invalid(param, "must not contain NUL")


def check_variables(param: str, variables: Mapping[str, str], max_bytes: int) -> None:
    for name, value in variables.items():
        if not name or "=" in name or "\0" in name + value:
            raise invalid(param, f"{name!r} cannot be set: names must be non-empty, without '=' and NUL")
        if name in (MARKER, OWNER):
            raise invalid(param, f"{name} is set by the gateway")
    size = sum(len(os.fsencode(name)) + len(os.fsencode(value)) for name, value in variables.items())
    check_size(param, size, max_bytes)


def check_cwd(cwd: str, *, allow_absolute: bool) -> None:
    """By its words; links are followed on the host, when the command starts."""
    if "\0" in cwd:
        raise invalid("cwd", "must not contain NUL")
    path = posixpath.normpath(cwd or ".")
    if not allow_absolute and (path.startswith("/") or path.split("/", 1)[0] == ".."):
        raise invalid("cwd", "must be inside the workspace of the session (this gateway allows no other)")


def check_limits(param: str, asked: LimitsRequest, host: str, can: HostCapabilities | None) -> None:
    """A limit that does not hold is worse than none: who asked relies on it. What a host can is not known
    before it was reached, and then it refuses by itself."""
    if can is None:
        return
    for name, value, holds in (
        ("memory_mb", asked.memory_mb, can.can_limit_memory),
        ("pids", asked.pids, can.can_limit_pids),
        ("cpu_max", asked.cpu_max, can.can_limit_cpu),
    ):
        if value is not None and not holds:
            message = (
                f"{param}.{name}: host {host!r} cannot limit this; see its capabilities at GET /v1/hosts"
            )
            raise Refusal(400, "unsupported_limit", message, param=f"{param}.{name}")


def stdin_bytes(request: ExecRequest, limits: Limits) -> bytes:
    if request.stdin_b64 is None:
        return b""
    try:
        data = base64.b64decode(request.stdin_b64, validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid("stdin_b64", "must be base64") from error
    check_size("stdin_b64", len(data), limits.max_stdin_bytes)
    return data


def check_size(param: str, size: int, limit: int) -> None:
    if size > limit:
        raise Refusal(413, "too_large", f"{param}: {size} bytes, the limit is {limit}", param=param)
