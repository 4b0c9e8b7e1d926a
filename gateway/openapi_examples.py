"""One example of each body, as a client would see it.

Owns the values. They are structs, so an example that does not fit its schema cannot be written.
"""

import msgspec

from gateway.protocol import (
    ArchiveStatus,
    DrainRequest,
    ExecRequest,
    ExecState,
    ExecStatus,
    FileStatus,
    HeartbeatRequest,
    HostCapabilities,
    HostList,
    HostStatus,
    LeaseEnding,
    LeaseRenewal,
    LeaseRequest,
    LeaseState,
    LeaseStatus,
    SessionList,
    SessionRequest,
    SessionStatus,
    SignalRequest,
    SignalStatus,
    StdinRequest,
    StdinStatus,
    StreamStatus,
    TtyRequest,
)

_EXEC = ExecStatus(
    id="ex-1352d06e879e3c5538b318de",
    session="fix-1",
    state=ExecState.EXITED,
    exit_code=0,
    signal=None,
    timed_out=False,
    reason=None,
    host="local",
    cpu=1.0,
    queue_s=0.0002,
    run_s=0.0043,
    cpu_s=0.0016,
    max_rss_mb=3.1,
    labels={"tool_call_id": "call_8f2e"},
    stdout=StreamStatus(3, 3, False, text="42\n", next_offset=3),
    stderr=StreamStatus(0, 0, False, text=""),
)
_HOST = HostStatus(
    name="local",
    state="up",
    labels={"arch": "x86_64"},
    capabilities=HostCapabilities(
        "cgroup_v2", True, True, True, True, isolates_sessions=True, sandbox="bwrap"
    ),
    sessions=1,
    slots=8.0,
    slots_used=1.0,
    memory_reserved_mb=512.0,
    cores=8.0,
    running=1,
    queued=0,
    queue_limit=256,
    is_draining=False,
    load_1m=0.7,
    memory_total_mb=32_000,
    memory_available_mb=21_000,
    cpu_pressure=0.02,
    memory_pressure=0.0,
    queue_wait_s=0.01,
)
_LEASE = LeaseStatus(
    id="le-5d41402abc4b2a76b9719d91",
    session="fix-1",
    host="local",
    state=LeaseState.HELD,
    cpu=1.0,
    queue_s=0.0,
    expires_in_s=30.0,
    queue_position=None,
)
_SESSION = SessionStatus(
    id="fix-1",
    host="local",
    workspace="/var/lib/mars/sessions/fix-1",
    env_names=["LANG"],
    cwd=None,
    labels={},
    execs_active=0,
    expires_in_s=None,
    idle_expires_in_s=600.0,
)

EXAMPLES: dict[type[msgspec.Struct], msgspec.Struct] = {
    SessionRequest: SessionRequest(env={"LANG": "C"}, idle_ttl_s=600.0),
    SessionStatus: _SESSION,
    SessionList: SessionList([_SESSION]),
    ExecRequest: ExecRequest(command="echo $((6*7))", timeout_s=20.0, labels={"tool_call_id": "call_8f2e"}),
    ExecStatus: _EXEC,
    StdinRequest: StdinRequest(data_b64="eWVzCg=="),
    StdinStatus: StdinStatus(next_offset=4),
    SignalRequest: SignalRequest("SIGINT"),
    SignalStatus: SignalStatus(was_sent=True),
    TtyRequest: TtyRequest(cols=120, rows=40),
    HeartbeatRequest: HeartbeatRequest(ttl_s=15.0),
    FileStatus: FileStatus("src/main.py", 1204),
    ArchiveStatus: ArchiveStatus(".", 12),
    LeaseRequest: LeaseRequest(session="fix-1", program="pytest"),
    LeaseStatus: _LEASE,
    LeaseRenewal: LeaseRenewal(ttl_s=60.0),
    LeaseEnding: LeaseEnding(exit_code=0),
    DrainRequest: DrainRequest(is_draining=True),
    HostStatus: _HOST,
    HostList: HostList([_HOST]),
}
