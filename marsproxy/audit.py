"""A line for each call of an admin route: who, what, and what came of it.

The lines go to the logger ``marsproxy.audit``, and to a file of their own where one is configured. A line is
JSON, so nothing that a caller puts into a path can make two of one. It has no header, body or query: those
may hold keys.
"""

import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from logging.handlers import WatchedFileHandler
from pathlib import Path

from fastapi import Request
from starlette.exceptions import HTTPException

from marsproxy.errors import Refuse

LOGGER = "marsproxy.audit"
MAX_PATH_CHARACTERS = 256
"""Of a caller's choosing, in a file that is kept."""

log = logging.getLogger(LOGGER)

Check = Callable[[Request], Awaitable[str]]
"""Who calls, e.g. ``marsproxy.admin.admin(token)``.

Raises:
    Refuse: they may not.
"""


def audited(check: Check) -> Callable[[Request], AsyncIterator[str]]:
    """The same dependency for FastAPI, which also leaves a line once the call is over."""

    async def call(request: Request) -> AsyncIterator[str]:
        who, outcome = "nobody", "failed"
        try:
            who = await check(request)
            yield who
            outcome = "done"
        except Refuse as exc:
            outcome = exc.refusal.code
            raise
        except HTTPException as exc:
            outcome = str(exc.status_code)
            raise
        finally:
            _write(request, who, outcome)

    return call


def begin(path: Path | None) -> None:
    """Lines are written whatever else the log leaves out. In a file of their own they are not repeated
    elsewhere; it may be moved away, and the next line begins another."""
    log.setLevel(logging.INFO)
    if path is None:
        return
    log.propagate = False
    handler = WatchedFileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(handler)


def _write(request: Request, who: str, outcome: str) -> None:
    line = {
        "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "who": str(who),
        "from": None if request.client is None else request.client.host,
        "what": f"{request.method} {request.url.path[:MAX_PATH_CHARACTERS]}",
        "outcome": outcome,
    }
    log.info(json.dumps(line))
