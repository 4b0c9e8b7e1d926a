"""fs/*: files of the host that commands run on, by small commands.

Owns those commands and what their endings mean. Absolute paths are the host's, as they are to commands;
contents that are written wait in the workspace on their way.
"""

import base64
import secrets
import shlex
from dataclasses import dataclass
from typing import Any

from gateway.compat.calls import output_of, run_to_end
from gateway.compat.codex_protocol import (
    INTERNAL_ERROR,
    NOT_FOUND,
    Copy,
    Entry,
    FileMetadata,
    OnPath,
    RpcError,
    WriteFile,
    check_unsandboxed,
    path_of,
    uri_of,
)
from gateway.compat.workspace_files import put_bytes
from gateway.gateway import Gateway
from gateway.protocol import ExecRequest, OutputRequest, StreamName
from gateway.session_record import Session
from gateway.transfers import Workspace

_MAX_FILE_BYTES = 64 << 20
"""An answer is one message, made in memory."""
_CPU = 0.1
"""Of a slot: each looks at a file or copies one."""
_TIMEOUT_S = 120.0
_MISSING = 44
"""Exit code of ours that none of the programs has."""
_HERE = "[[ -e $p || -L $p ]] || exit 44; "


@dataclass(frozen=True, slots=True)
class CodexFiles:
    gateway: Gateway
    session: Session

    async def get_metadata(self, params: OnPath) -> FileMetadata:
        out = await self._on(
            params, _HERE + "[[ -L $p ]] && echo 1 || echo 0; stat -L -c '%F|%s|%.3Y' -- \"$p\""
        )
        link, _, rest = out.decode().partition("\n")
        kind, size, modified = rest.strip().rsplit("|", 2)
        return FileMetadata(
            is_directory=kind == "directory",
            is_file=kind.startswith("regular"),
            is_symlink=link == "1",
            size=int(size),
            created_at_ms=0,  # As that executor says where it does not know.
            modified_at_ms=int(float(modified) * 1000),
        )

    async def read_file(self, params: OnPath) -> dict[str, Any]:
        return {"dataBase64": base64.b64encode(await self._on(params, _HERE + 'cat -- "$p"')).decode()}

    async def write_file(self, params: WriteFile) -> dict[str, Any]:
        check_unsandboxed(params.sandbox)
        path = path_of(params.path, "path")
        staged = f".mars/in-{secrets.token_hex(8)}"
        workspace = Workspace(self.gateway.sessions.client(self.session), self.session.name, self.session.id)
        await put_bytes(workspace, staged, params.data_base64)
        try:
            text = f'p={shlex.quote(path)}; [[ -d ${{p%/*}}/ ]] || exit 44; cat -- {staged} >"$p"'
            await self._run(text, path)
        finally:
            await workspace.remove(staged)
        return {}

    async def create_directory(self, params: OnPath) -> dict[str, Any]:
        await self._on(params, f'mkdir {"-p" if params.recursive is not False else ""} -- "$p"')
        return {}

    async def read_directory(self, params: OnPath) -> dict[str, list[Entry]]:
        out = await self._on(
            params, _HERE + "cd -- \"$p\" && find . -mindepth 1 -maxdepth 1 -printf '%Y%P\\0'"
        )
        entries = [each.decode("utf-8", "replace") for each in out.split(b"\0") if each]
        return {"entries": [Entry(each[1:], each[0] == "d", each[0] == "f") for each in sorted(entries)]}

    async def canonicalize(self, params: OnPath) -> dict[str, str]:
        out = await self._on(params, _HERE + 'realpath -z -- "$p"')
        return {"path": uri_of(out.rstrip(b"\0").decode("utf-8", "surrogateescape"))}

    async def remove(self, params: OnPath) -> dict[str, Any]:
        is_forced = params.force is not False
        options = ("r" if params.recursive is not False else "d") + ("f" if is_forced else "")
        await self._on(params, ("" if is_forced else _HERE) + f'rm -{options} -- "$p"')
        return {}

    async def copy(self, params: Copy) -> dict[str, Any]:
        check_unsandboxed(params.sandbox)
        source = path_of(params.source_path, "sourcePath")
        target = path_of(params.destination_path, "destinationPath")
        option = "-a" if params.recursive else "-P"
        text = f'p={shlex.quote(source)}; {_HERE}cp {option} -T -- "$p" {shlex.quote(target)}'
        await self._run(text, source)
        return {}

    async def _on(self, params: OnPath, command: str) -> bytes:
        check_unsandboxed(params.sandbox)
        path = path_of(params.path, "path")
        return await self._run(f"p={shlex.quote(path)}; {command}", path)

    async def _run(self, text: str, path: str) -> bytes:
        """What it wrote. Raises RpcError, Refusal, NotRun."""
        limits = self.gateway.limits
        request = ExecRequest(
            command=text,
            cwd=".",
            output=OutputRequest(max_bytes=min(_MAX_FILE_BYTES, limits.max_output_bytes)),
            cpu=min(_CPU, limits.slots),
            timeout_s=_TIMEOUT_S,
        )
        record = await run_to_end(self.gateway, self.session, request, None)
        if record.exit_code == _MISSING:
            raise RpcError(NOT_FOUND, "No such file or directory (os error 2)")
        if record.exit_code != 0:
            said = await output_of(self.gateway, record, StreamName.STDERR)
            reason = said.decode(errors="replace").strip() or record.reason or record.state.value
            raise RpcError(INTERNAL_ERROR, f"{path}: {reason}")
        if record.stdout.total_bytes > record.stdout.kept_bytes:
            raise RpcError(INTERNAL_ERROR, f"{path}: more than {record.stdout.kept_bytes} bytes")
        return await output_of(self.gateway, record, StreamName.STDOUT)
