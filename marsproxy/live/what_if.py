"""``GET /mars/v1/what-if``: what another policy or setting would have decided in the last ten minutes.

The answer is computed by a process of its own, one at a time and of low priority, because a log is replayed
from its beginning and the proxy has turns to serve.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query

from marsproxy import errors
from marsproxy.config import Config
from marsproxy.errors import Refuse

WINDOW_S = 600.0
TIMEOUT_S = 60.0
"""A replay handles some ten thousand events a second; a log of more than that takes ``marsproxy replay``."""
MAX_CHANGES = 8


def add_what_if_route(api: FastAPI, config: Config, is_admin: Any) -> None:
    busy = asyncio.Lock()

    @api.get("/mars/v1/what-if", dependencies=[is_admin])
    async def what_if(
        policy: Annotated[str | None, Query(max_length=64)] = None,
        changes: Annotated[list[str] | None, Query(alias="set", max_length=MAX_CHANGES)] = None,
    ) -> Any:
        """Counts of what was decided, beside what would have been. Needs the event log."""
        directory = config.event_log.dir
        if directory is None:
            raise Refuse(errors.not_found("event log; start with --event-log DIR"))
        if busy.locked():
            raise Refuse(errors.busy("another what-if is being computed"))
        async with busy:
            return await _computed(directory, policy, changes or [])


async def _computed(directory: Path, policy: str | None, changes: list[str]) -> Any:
    asked = [] if policy is None else [f"--policy={policy}"]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "marsproxy.live.what_if_report", str(directory), str(WINDOW_S), *asked),
        *(f"--set={change}" for change in changes),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(TIMEOUT_S):
            out, _ = await process.communicate()
    except TimeoutError:
        raise Refuse(errors.busy("the log is too long to be replayed here; use marsproxy replay")) from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    answer = json.loads(out) if process.returncode == 0 else {"error": "the log could not be replayed"}
    if "error" in answer:
        raise Refuse(errors.bad_request("bad_parameter", answer["error"]))
    return answer
