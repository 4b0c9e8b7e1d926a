"""Open files: every session in flight is a connection, and many systems allow a process 1,024 of them."""

import resource

from loadgen.arrivals import ClosedLoop, Load
from loadgen.errors import LoadgenError

SPARE_FILES = 64
"""Beside the connections: records, standard streams, the gateway's and the metrics' connections."""


def raise_open_file_limit() -> int:
    """To what this process may have; returns it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def check_open_files(load: Load, sessions: int, limit: int, connections_per_session: int) -> None:
    """Only a closed loop says beforehand how many sessions are in flight."""
    if not isinstance(load, ClosedLoop) or limit == resource.RLIM_INFINITY:
        return
    needed = min(load.agents, sessions) * connections_per_session + SPARE_FILES
    if needed > limit:
        raise LoadgenError(
            f"{needed} open files are needed, {limit} allowed; raise the limit with `ulimit -n`"
        )
