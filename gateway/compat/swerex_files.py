"""Files of a SWE-ReX runtime, by the paths that its commands see.

Contents go into the workspace through the gateway's transfers, a piece at a time, and from there to their
place by a small command, for only that sees the runtime's root directory; what is read is the output of such
a command.
"""

import contextlib
import hashlib
import secrets
import shlex
from collections.abc import AsyncIterator

from gateway.compat import swerex_faults as faults
from gateway.compat.calls import run_to_end
from gateway.compat.shell_gate import DIRECTORY, gate_env
from gateway.compat.swerex_protocol import ReadFile, WriteFile
from gateway.compat.swerex_results import Output, exit_code_of, text_of
from gateway.compat.swerex_runtime import SwerexRuntime
from gateway.compat.swerex_shells import Runtime
from gateway.compat.workspace_files import Readable, put_bytes, put_stream
from gateway.exec_record import Exec
from gateway.protocol import ExecRequest, ExecState, OutputRequest

_MAX_READ_BYTES = 64 << 20
"""An answer is JSON, made in memory."""
_CPU = 0.25
"""Of a slot: it copies."""
_NO_FILE, _IS_DIRECTORY, _NOT_READABLE = 44, 45, 46
"""Exit codes that ``cat`` has not."""
_READ = 'f={path}; [[ -e $f ]] || exit 44; [[ ! -d $f ]] || exit 45; [[ -r $f ]] || exit 46; exec cat -- "$f"'
_WRITE = 'f={path}; mkdir -p -- "$(dirname -- "$f")" && cat -- {staged} >"$f"'
_MOVE = 'f={path}; mkdir -p -- "$(dirname -- "$f")" && mv -f -- {staged} "$f"'
_UNZIP = 'f={path}; mkdir -p -- "$f" && python3 -m zipfile -e {staged} "$f"'


async def read_file(swerex: SwerexRuntime, body: ReadFile) -> str:
    runtime = await swerex.prepared()
    record, output = await _run(swerex, runtime, _READ.format(path=shlex.quote(body.path)))
    match exit_code_of(record):
        case 0:
            return _decoded(body, record, output.stdout)
        case 44:
            raise faults.no_file(body.path)
        case 45:
            raise faults.is_directory(body.path)
        case 46:
            raise faults.no_permission(body.path)
    raise _failed(record, output)


async def write_file(swerex: SwerexRuntime, body: WriteFile) -> None:
    runtime = await swerex.prepared()
    async with _staged(swerex, runtime) as staged:
        await put_bytes(swerex.workspace(runtime), staged, body.content.encode("utf-8", "surrogatepass"))
        await _place(swerex, runtime, _WRITE, staged, body.path)


async def upload(swerex: SwerexRuntime, source: Readable, target_path: str, *, unzips: bool) -> None:
    runtime = await swerex.prepared()
    async with _staged(swerex, runtime) as staged:
        await put_stream(swerex.workspace(runtime), staged, source)
        await _place(swerex, runtime, _UNZIP if unzips else _MOVE, staged, target_path)


@contextlib.asynccontextmanager
async def _staged(swerex: SwerexRuntime, runtime: Runtime) -> AsyncIterator[str]:
    """Where contents wait in the workspace; the same for a request that comes again, whose command is the
    same then."""
    key = swerex.key
    name = secrets.token_hex(8) if key is None else hashlib.sha256(key.encode()).hexdigest()[:16]
    path = f"{DIRECTORY}/in-{name}"
    try:
        yield path
    finally:
        await swerex.workspace(runtime).remove(path)


async def _place(swerex: SwerexRuntime, runtime: Runtime, command: str, staged: str, path: str) -> None:
    text = command.format(path=shlex.quote(path), staged=shlex.quote(staged))
    record, output = await _run(swerex, runtime, text)
    if exit_code_of(record) != 0:
        raise _failed(record, output)


async def _run(swerex: SwerexRuntime, runtime: Runtime, text: str) -> tuple[Exec, Output]:
    request = ExecRequest(
        command=text,
        cwd=".",
        env=gate_env(is_private=swerex.is_private),
        output=OutputRequest(max_bytes=min(_MAX_READ_BYTES, swerex.gateway.limits.max_output_bytes)),
        cpu=min(_CPU, swerex.gateway.limits.slots),
    )
    record = await run_to_end(swerex.gateway, runtime.session, request, swerex.key)
    return record, await swerex.output(record)


def _decoded(body: ReadFile, record: Exec, data: bytes) -> str:
    if record.stdout.total_bytes > len(data):
        raise faults.bad_value(f"path: {body.path!r} has more than {len(data)} bytes, which is the limit")
    try:
        return data.decode(body.encoding or "utf-8", body.errors or "strict")
    except (UnicodeDecodeError, LookupError) as error:
        raise faults.bad_value(f"encoding, errors: {error}") from error


def _failed(record: Exec, output: Output) -> faults.SwerexFault:
    said = text_of(output.stderr).strip() or record.reason or record.state.value
    if record.state is ExecState.TIMED_OUT:
        return faults.timed_out(f"the file operation took too long: {said}")
    if "Permission denied" in said or "Read-only" in said:
        return faults.SwerexFault("builtins.PermissionError", said)
    return faults.SwerexFault("builtins.OSError", said)
