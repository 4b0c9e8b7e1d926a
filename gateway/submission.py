"""From an exec request to a command on its way, at most once per Idempotency-Key.

Owns the checks that need the session and the limits, the environment that commands start with, and the
meaning of a repeated key. It must not know HTTP.
"""

import base64
import binascii
import hashlib
import os
import secrets
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from gateway.errors import Refusal, invalid
from gateway.exec_record import Exec
from gateway.execs import Command, Execs
from gateway.idempotency import IdempotencyTable, Key
from gateway.limits import Limits
from gateway.protocol import ExecRequest
from gateway.runner import StartError
from gateway.sessions import Session
from gateway.sweep import MARKER
from gateway.tool_signature import program_name

_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_INHERITED = ("PATH", "TZ")
"""All that commands get of our own environment; tokens and keys live there too."""
_QUIET = {
    "GIT_TERMINAL_PROMPT": "0",
    "DEBIAN_FRONTEND": "noninteractive",
    "PAGER": "cat",
    "GIT_PAGER": "cat",
    "TERM": "dumb",
    "LANG": "C.UTF-8",
}
"""Nobody is there to answer a question or to leave a pager."""


class Submission:
    def __init__(
        self, *, limits: Limits, execs: Execs, clock: Callable[[], float], environ: Mapping[str, str]
    ) -> None:
        self._limits = limits
        self._execs = execs
        self._clock = clock
        inherited = {name: environ[name] for name in _INHERITED if name in environ}
        self._base_env = {"PATH": _DEFAULT_PATH, **inherited, **_QUIET}
        self._keys = IdempotencyTable(limits.max_idempotency_keys, limits.idempotency_ttl_s)

    def submit(self, session: Session, request: ExecRequest, idempotency_key: str | None) -> Exec:
        """Raises Refusal. Nothing is awaited in here, so two requests with one key cannot both pass."""
        if idempotency_key is None:
            return self._execs.submit(self._command(session, request), _new_id())
        key: Key = (session.tenant, idempotency_key)
        digest = _request_digest(session.id, request)
        claim = self._keys.find(key, self._clock())
        if claim is None:
            return self._submit_claimed(session, request, key, digest)
        if claim.body_digest != digest:
            message = "Idempotency-Key: used before with another body or session; this command was not run"
            raise Refusal(409, "idempotency_key_reused", message, param="Idempotency-Key")
        record = self._execs.find(session.tenant, claim.exec_id)
        if record is None:
            message = "this command was run under its Idempotency-Key, and its result is no longer on record"
            raise Refusal(410, "exec_forgotten", message, param="Idempotency-Key")
        return record

    def _submit_claimed(self, session: Session, request: ExecRequest, key: Key, digest: bytes) -> Exec:
        command, exec_id = self._command(session, request), _new_id()
        if not self._keys.try_claim(key, digest, exec_id, self._clock()):
            message = "too many Idempotency-Keys are on record; this command was not run"
            raise Refusal(
                429, "too_many_idempotency_keys", message, param="Idempotency-Key", retry_after_s=60
            )
        try:
            return self._execs.submit(command, exec_id)
        except Refusal:
            self._keys.release(key)
            raise

    def _command(self, session: Session, request: ExecRequest) -> Command:
        limits = self._limits
        argv, text = _argv_and_text(request)
        param = "command" if request.argv is None else "argv"
        _check_size(param, sum(len(os.fsencode(word)) for word in argv), limits.max_command_bytes)
        if any("\0" in word for word in argv):
            raise invalid(param, "must not contain NUL")
        if request.cpu > limits.slots:
            raise invalid("cpu", f"must be at most {limits.slots:g}, which is all that this gateway has")
        if (timeout_s := request.timeout_s) is not None and timeout_s > limits.max_timeout_s:
            raise invalid("timeout_s", f"must be at most {limits.max_timeout_s:g}")
        if (max_bytes := request.output.max_bytes) is not None and max_bytes > limits.max_output_bytes:
            raise invalid("output.max_bytes", f"must be at most {limits.max_output_bytes}")
        cwd = request.cwd if request.cwd is not None else (session.settings.cwd or ".")
        check_cwd(session.workspace, cwd, allow_absolute=limits.allow_absolute_cwd)
        return Command(
            tenant=session.tenant,
            session=session.id,
            argv=argv,
            digest=hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest(),
            program=program_name(text),
            cwd=lambda: _start_directory(session.workspace, cwd, allow_absolute=limits.allow_absolute_cwd),
            env=self._environment(session, request),
            stdin=self._stdin(request),
            timeout_s=limits.timeout_s if timeout_s is None else timeout_s,
            queue_timeout_s=limits.queue_timeout_s
            if request.queue_timeout_s is None
            else request.queue_timeout_s,
            kill_grace_s=request.kill_grace_s,
            cpu=request.cpu,
            max_output_bytes=limits.output_bytes if max_bytes is None else max_bytes,
            merges_output=request.output.merge,
            labels={**session.settings.labels, **request.labels},
        )

    def _environment(self, session: Session, request: ExecRequest) -> dict[str, str]:
        asked = {**session.settings.env, **request.env}
        check_variables("env", asked, self._limits.max_env_bytes)
        return {"HOME": str(session.workspace), **self._base_env, **asked}

    def _stdin(self, request: ExecRequest) -> bytes:
        if request.stdin_b64 is None:
            return b""
        try:
            data = base64.b64decode(request.stdin_b64, validate=True)
        except (binascii.Error, ValueError) as error:
            raise invalid("stdin_b64", "must be base64") from error
        _check_size("stdin_b64", len(data), self._limits.max_stdin_bytes)
        return data


def check_variables(param: str, variables: Mapping[str, str], max_bytes: int) -> None:
    for name, value in variables.items():
        if not name or "=" in name or "\0" in name + value:
            raise invalid(param, f"{name!r} cannot be set: names must be non-empty, without '=' and NUL")
        if name == MARKER:
            raise invalid(param, f"{MARKER} is set by the gateway")
    _check_size(
        param, sum(len(os.fsencode(n)) + len(os.fsencode(v)) for n, v in variables.items()), max_bytes
    )


def check_cwd(workspace: Path, cwd: str, *, allow_absolute: bool) -> Path:
    """The directory, links followed. It need not exist yet: an earlier command may make it."""
    if "\0" in cwd:
        raise invalid("cwd", "must not contain NUL")
    path = (workspace / cwd).resolve()
    if not allow_absolute and not path.is_relative_to(workspace.resolve()):
        raise invalid("cwd", "must be inside the workspace of the session (this gateway allows no other)")
    return path


def _start_directory(workspace: Path, cwd: str, *, allow_absolute: bool) -> Path:
    try:
        return check_cwd(workspace, cwd, allow_absolute=allow_absolute)
    except Refusal as refusal:
        raise StartError(refusal.message) from refusal


def _argv_and_text(request: ExecRequest) -> tuple[tuple[str, ...], str]:
    """What to run, and the text that a tool call would name it by."""
    if request.command is not None:
        return (*request.shell.split(), request.command), request.command
    assert request.argv is not None
    return tuple(request.argv), _text_of(request.argv)


def _text_of(argv: list[str]) -> str:
    """``bash -lc TEXT``, as shims send it, is TEXT; anything else is quoted as one would type it."""
    if len(argv) == 3 and Path(argv[0]).name in ("bash", "sh") and argv[1] in ("-c", "-lc"):
        return argv[2]
    return shlex.join(argv)


def _check_size(param: str, size: int, limit: int) -> None:
    if size > limit:
        raise Refusal(413, "too_large", f"{param}: {size} bytes, the limit is {limit}", param=param)


def _request_digest(session_id: str, request: ExecRequest) -> bytes:
    """Of the meaning, not the bytes: field order and spaces may differ between attempts."""
    return hashlib.sha256(msgspec.json.encode((session_id, request), order="sorted")).digest()


def _new_id() -> str:
    return f"ex-{secrets.token_hex(12)}"
