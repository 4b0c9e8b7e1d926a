"""What Codex' exec-server and its clients say to each other, as far as we do: version 0.169.

Owns names and types, and the errors of JSON-RPC. Fields that we do not know are left alone.
"""

from typing import Annotated, Any, Literal
from urllib.parse import quote, unquote, urlsplit

import msgspec
from msgspec import Meta, Struct, field

SPEAKS_VERSION = "0.169.0"
"""Of the executor whose protocol this is."""

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
NOT_FOUND = -32004
"""A file is not there; as that executor says it."""

Bytes = Annotated[int, Meta(ge=0)]
Name = Annotated[str, Meta(min_length=1, max_length=200)]


class RpcError(Exception):
    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Request(Struct, frozen=True):
    """Also a notification, which has no id."""

    method: str
    id: int | str | None = None
    params: msgspec.Raw = msgspec.Raw(b"{}")


class Params(Struct, frozen=True, rename="camel"):
    pass


class Initialize(Params, frozen=True):
    client_name: str = ""
    resume_session_id: str | None = None


class Metadata(Params, frozen=True):
    thread_id: str | None = None
    tool_call_id: str | None = None


class EnvPolicy(Params, frozen=True):
    set: dict[str, str] = {}


class Start(Params, frozen=True):
    process_id: Name
    argv: Annotated[list[str], Meta(min_length=1)]
    cwd: str
    env: dict[str, str] = {}
    env_policy: EnvPolicy | None = None
    tty: bool = False
    pipe_stdin: bool = False
    arg0: str | None = None
    metadata: Metadata | None = None
    sandbox: Any = None
    enforce_managed_network: bool = False


class Read(Params, frozen=True):
    process_id: Name
    after_seq: int | None = None
    max_bytes: Bytes | None = None
    wait_ms: Annotated[int, Meta(ge=0)] | None = None


class Write(Params, frozen=True):
    process_id: Name
    chunk: bytes
    """Base64 on the wire, here and below."""
    write_id: str | None = None


class Signal(Params, frozen=True):
    process_id: Name
    signal: Literal["interrupt"]


class Terminate(Params, frozen=True):
    process_id: Name


class OnPath(Params, frozen=True):
    path: str
    sandbox: Any = None
    recursive: bool | None = None
    force: bool | None = None


class WriteFile(Params, frozen=True):
    path: str
    data_base64: bytes
    sandbox: Any = None


class Copy(Params, frozen=True):
    source_path: str
    destination_path: str
    recursive: bool = False
    sandbox: Any = None


class Chunk(Params, frozen=True):
    seq: int
    stream: Literal["stdout", "stderr", "pty"]
    chunk: bytes


class ReadAnswer(Params, frozen=True):
    chunks: list[Chunk]
    next_seq: int
    exited: bool
    exit_code: int | None
    closed: bool
    failure: str | None = None
    sandbox_denied: bool = False


class FileMetadata(Params, frozen=True):
    is_directory: bool
    is_file: bool
    is_symlink: bool
    size: int
    created_at_ms: int
    modified_at_ms: int


class Entry(Params, frozen=True):
    file_name: str
    is_directory: bool
    is_file: bool


class Shell(Params, frozen=True):
    name: str = "bash"
    path: str = "/bin/bash"


class Capabilities(Params, frozen=True):
    """What this executor leaves out, said as that one says it."""

    network_proxy_launch: bool = False
    network_proxy_review_domains: bool = False
    credential_masking: bool = False
    credential_masking_custom_providers: bool = False
    capability_discovery_sandbox: bool = False
    fs_watch_missing: bool = False
    capability_discovery_v2: bool = field(default=False, name="capabilityDiscoveryV2")
    environment_config_read: bool = False
    http_header_env_vars: bool = False
    sandboxed_file_streaming: bool = False
    file_write_streaming: bool = False
    shell_snapshot_v2: bool = field(default=False, name="shellSnapshotV2")
    windows_mxc: bool = False
    linux_root_write_preserves_devices: bool = False
    linux_approved_root_write_preserves_restrictions: bool = False


class EnvironmentInfo(Params, frozen=True):
    cwd: str
    user_home_dir: str
    shell: Shell = Shell()
    executor_version: str = SPEAKS_VERSION
    platform_os: str = "linux"
    prepend_path_dirs: list[str] = []
    temporary_directories: list[str] = []
    temp_dir: str = "file:///tmp"
    capabilities: Capabilities = Capabilities()


class Initialized(Params, frozen=True):
    session_id: str
    environment_info: EnvironmentInfo


def path_of(uri: str, param: str) -> str:
    """Raises RpcError."""
    parts = urlsplit(uri)
    if parts.scheme != "file" or parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
        raise RpcError(INVALID_PARAMS, f"{param}: must be a file:/// URI with an absolute path")
    path = unquote(parts.path)
    if "\0" in path:
        raise RpcError(INVALID_PARAMS, f"{param}: must not contain NUL")
    return path


def uri_of(path: str) -> str:
    return f"file://{quote(path)}"


def check_unsandboxed(sandbox: Any, param: str = "sandbox") -> None:
    """Raises RpcError: a sandbox that is not there is worse than none."""
    if sandbox is not None:
        message = f"{param}: this executor has no sandbox; run codex with --sandbox danger-full-access"
        raise RpcError(INVALID_REQUEST, message)
