"""The protocol between a gateway and the agent on a host: frames, operations, refusals.

Owns names and the encoding of frames; both sides import it. It must not know how anything is done.

A *frame* is two big-endian 32-bit lengths, a JSON object of the first length (the *header*) and as many bytes
of the second (the *payload*: output, input, file contents; empty as a rule). Every request has an ``id`` that
its connection has not used before and an ``op``; the answer repeats the ``id``. Requests are answered in any
order. Answers have ``ok``: true, or false with ``error`` (one of ``Fault``) and ``message``.

Durations are seconds, sizes bytes, memory MB (10^6 bytes) unless a name says otherwise. None is unknown.
Readers ignore fields that they do not know; a new meaning of an old field is a new ``VERSION``.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import Any

VERSION = 1

MAX_HEADER_BYTES = 4 << 20
"""A command with its environment and its record: the REST API bounds both well below."""
MAX_PAYLOAD_BYTES = 1 << 20
"""Output and files travel in pieces of at most this."""

MARKER = "MARS_EXEC_ID"
"""In the environment of every process of a command, with the id of its exec."""
OWNER = "MARS_EXEC_AGENT"
"""Beside it, with the name of the agent's directory: agents of several gateways may share a host, and two of
their execs an id, as ids come from the keys of callers."""

_LENGTHS = struct.Struct(">II")
LENGTHS_BYTES = _LENGTHS.size


class Op:
    """What may be asked. Fields of request -> fields of answer; P is the payload."""

    HELLO = "hello"
    """gateway, versions[]; optional: isolation{session_uids [first, last] or null, sandbox ("none"|"bwrap")},
    which holds for all sessions and commands of this connection, or they are refused
    -> version, agent (digest of its program), instance (random, per start), boot_id, capabilities{...}: what
    holds for this connection. First on each connection."""

    START = "exec.start"
    """exec, session, argv[], cwd, env{}, timeout_s, kill_grace_s, output{max_bytes, merge}, record, P stdin;
    optional: state ("none"|"env_cwd"), keep_stdin (input goes on by ``exec.stdin``), tty{cols, rows},
    limits{memory_mb, pids, fsize_mb, cpu_max, cpu_weight}, on_exit ("kill_group"|"keep"),
    allow_outside (bool: ``cwd`` may leave the workspace), boot_id (of the life of the host in which it was
    sent first: in another, what says that it was run may be gone with the power, so one that is not known
    is Fault.GONE and not started)
    -> a status. The directory of the exec is the lock: for an id that was started before, the answer is its
    status now with ``existed`` true, and nothing is run. ``record`` is the gateway's own, kept and given back
    as it is."""
    LOOK = "exec.look"
    """exec -> a status, or Fault.UNKNOWN_EXEC: it was never started here."""
    WAIT = "exec.wait"
    """exec, wait_s, inline_bytes -> a status, when it is over or the time is; over: P has up to
    ``inline_bytes`` of stdout and then of stderr, ``inline`` [n, m] says how many of each."""
    LIST = "exec.list"
    """after (exec id or ""), limit -> execs[] of statuses with ``record``, by id; the next page begins after
    the last one."""
    READ = "exec.read"
    """exec, stream ("stdout"|"stderr"), offset, limit, wait_s
    -> P, next_offset, is_eof, total_bytes, kept_bytes"""
    STDIN = "exec.stdin"
    """exec, offset, is_eof, P -> next_offset. What lies before the agent's offset is not written twice; a gap
    is Fault.BAD_REQUEST with ``next_offset``."""
    SIGNAL = "exec.signal"
    """exec, signal (name), scope ("group"|"tree") -> was_sent"""
    STOP = "exec.stop"
    """exec, grace_s -> a status. SIGTERM, the grace, SIGKILL. Again is the same as once."""
    RESIZE = "exec.resize"
    """exec, cols, rows"""
    FORGET = "exec.forget"
    """exec; optional: taken_s (for so long its id stays taken): its output goes. Who may be sent again under
    its id, as a command with a key is, must be taken for as long as that lasts."""

    SESSION_PUT = "session.put"
    """session, record -> workspace (absolute path), is_new"""
    SESSION_LIST = "session.list"
    """after (a session's name, optional) -> sessions[] of {session, workspace, record}, by name; is_last.
    What would be too long for one answer goes on after the last of them."""
    SESSION_REMOVE = "session.remove"
    """session; optional: keeps_workspace (bool): ends what runs in it and removes the workspace, unless that
    is to be kept for a session of the same name. A session that is not there is no fault."""

    FILE_READ = "file.read"
    """session, path, offset, limit -> P, size, mode, mtime_s, is_eof"""
    FILE_WRITE = "file.write"
    """session, path, upload (an id of the caller's), offset, is_last, mode, P -> next_offset. The file is
    there, whole, after the last piece; parents are made."""
    FILE_REMOVE = "file.remove"
    """session, path -> was_there. A directory goes with all that is in it."""
    ARCHIVE_OPEN = "archive.open"
    """session, path, mode ("read"|"write") -> archive (handle, of this connection)"""
    ARCHIVE_READ = "archive.read"
    """archive -> P of an uncompressed tar, is_eof"""
    ARCHIVE_WRITE = "archive.write"
    """archive, is_last, P (tar, plain or gzip) -> after the last piece: entries"""
    ARCHIVE_CLOSE = "archive.close"
    """archive"""

    OBSERVE = "host.observe"
    """-> ``Reading`` as fields, execs{exec: {cpu_s, rss_mb}}"""
    CANCEL = "cancel"
    """request: its answer is not wanted any more. Has no effect on commands, and no answer."""
    RETIRE = "host.retire"
    """end_running (bool) -> did_retire. The agent ends; false and it stays while commands run."""


class Fault:
    """``error`` of an answer that is not ok."""

    BAD_REQUEST = "bad_request"
    UNKNOWN_OP = "unknown_op"
    NO_COMMON_VERSION = "no_common_version"
    UNKNOWN_EXEC = "unknown_exec"
    UNKNOWN_SESSION = "unknown_session"
    UNKNOWN_ARCHIVE = "unknown_archive"
    NOT_STARTED = "not_started"
    """The command was not started and never will be under this id; ``exit_code`` 126 or 127 where a shell
    would say so."""
    NOT_FOUND = "not_found"
    OUTSIDE = "outside"
    """The path leaves the workspace."""
    TOO_LARGE = "too_large"
    NO_SPACE = "no_space"
    FORBIDDEN = "forbidden"
    """The host does not let us: no permission, or a capability is missing."""
    GONE = "gone"
    """Its output was forgotten."""
    INTERNAL = "internal"


STATUS_FIELDS = (
    "exec",
    "state",  # "running" or "ended"
    "ended_by",  # "itself", "timeout", "stop", "oom" (out of memory), "nobody" (how it ended cannot be known)
    "returncode",  # as subprocess has it: -n when it died of signal n; None while it runs and with "nobody"
    "started_unix_s",  # the host's clock, for people
    "run_s",  # on the host's monotonic clock
    "cpu_s",
    "max_rss_mb",
    "oom_kills",
    "reason",
    "stdout",  # [total_bytes, kept_bytes]
    "stderr",
    "state_saved",  # with state "env_cwd": whether the next command will see what this one left
    "is_spool_full",  # its disk was full and output was dropped before max_bytes
)


class FrameError(Exception):
    """What came is no frame: the connection cannot be used any more."""


@dataclass
class Frame:
    header: dict[str, Any]
    payload: bytes = b""


def encode(header: dict[str, Any], payload: bytes = b"") -> bytes:
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=True).encode("ascii")
    if len(text) > MAX_HEADER_BYTES or len(payload) > MAX_PAYLOAD_BYTES:
        raise FrameError(f"too large: header {len(text)}, payload {len(payload)} bytes")
    return _LENGTHS.pack(len(text), len(payload)) + text + payload


def lengths(prefix: bytes) -> tuple[int, int]:
    """Of header and payload, from the first ``LENGTHS_BYTES`` of a frame. Raises FrameError."""
    header_bytes, payload_bytes = _LENGTHS.unpack(prefix)
    if header_bytes > MAX_HEADER_BYTES or payload_bytes > MAX_PAYLOAD_BYTES:
        raise FrameError(f"too large: header {header_bytes}, payload {payload_bytes} bytes")
    return header_bytes, payload_bytes


def decode(header: bytes, payload: bytes) -> Frame:
    """Raises FrameError."""
    try:
        fields = json.loads(header)
    except ValueError as error:
        raise FrameError("the header is not JSON") from error
    if not isinstance(fields, dict):
        raise FrameError("the header is no object")
    return Frame(fields, payload)
