"""What tests order hosts to run."""

from dataclasses import replace
from typing import Any

from gateway.host import RunOrder

_ORDER = RunOrder(
    exec_id="",
    session="s",
    argv=(),
    cwd=".",
    env={},
    stdin=b"",
    timeout_s=60,
    kill_grace_s=1,
    max_output_bytes=1 << 20,
    merges_output=False,
)


def order(command: str, exec_id: str, **changes: Any) -> RunOrder:
    return replace(_ORDER, exec_id=exec_id, argv=("sh", "-c", command), **changes)
