"""The proxy's own routes for those who look: a session's story, the live feed, the page, what if.

Every route is a coroutine, as in ``marsproxy.app``. All of them only read. Where there are tenants, a story
is for its tenant and the admin, and the feed, which shows everybody's sessions, for the admin.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request
from fastapi.responses import StreamingResponse

from marsproxy import errors
from marsproxy.admin import admin
from marsproxy.config import Config
from marsproxy.dispatcher import Dispatcher
from marsproxy.errors import Refuse
from marsproxy.live.feed import INTERVAL_S, Feed
from marsproxy.live.page import add_page_routes
from marsproxy.live.watch import Watch
from marsproxy.live.what_if import add_what_if_route
from marsproxy.live.why import why
from marsproxy.tenant_routes import viewer
from marsproxy.tenants.door import Door

MAX_SUBSCRIBERS = 32
"""Pages and terminals at a time, each at most a few hundred kilobytes a second."""
HEARTBEAT_S = 10.0
"""A comment after such a silence, so that whoever sits in between keeps the connection."""
COMMENT = b": still here\n\n"


def add_live_routes(
    api: FastAPI,
    config: Config,
    dispatcher: Dispatcher,
    watch: Watch,
    door: Door,
    *,
    is_leaving: Callable[[], bool],
) -> None:
    is_admin = admin(config.admin.token)
    asks = Depends(viewer(door, is_admin))
    feed = Feed(
        watch,
        lambda: dispatcher.policy,
        stale_s=config.admission.telemetry_stale_s,
        now=lambda: dispatcher.journal.now(),
    )

    async def sees_all(request: Request) -> None:
        if door.is_guarded:
            await is_admin(request)

    @api.get("/mars/v1/sessions/{session_id}/why")
    async def why_session(session_id: str, tenant: Annotated[str | None, asks]) -> Any:
        """What was decided on the session, and the numbers that led to it; the oldest first."""
        log = watch.stories.get(session_id)
        if log is None or tenant not in (None, log.tenant):
            raise Refuse(errors.not_found("session; its story may have expired"))
        now, session = dispatcher.journal.now(), dispatcher.policy.sessions.get(session_id)
        watch.note_loss(session, log)
        return why(session_id, log, session, now, time.time())

    @api.get("/mars/v1/live", dependencies=[Depends(sees_all)])
    async def live() -> StreamingResponse:
        """Server-sent events: one ``snapshot``, then a ``change`` up to five times a second."""
        if feed.subscribers >= MAX_SUBSCRIBERS:
            raise Refuse(errors.too_many_watchers(MAX_SUBSCRIBERS))
        headers = {
            "cache-control": "no-store",
            "x-accel-buffering": "no",
            "x-content-type-options": "nosniff",
        }
        return StreamingResponse(stream(feed, is_leaving), media_type="text/event-stream", headers=headers)

    add_what_if_route(api, config, Depends(is_admin))
    add_page_routes(api)


async def stream(
    feed: Feed, is_leaving: Callable[[], bool], *, pause: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> AsyncGenerator[bytes, None]:
    """Until the client goes or the proxy stops."""
    feed.subscribe()
    try:
        yield event("snapshot", feed.whole())
        seq, silent_s = feed.seq, 0.0
        while not is_leaving():
            await pause(INTERVAL_S)
            changes = feed.changes_since(seq)
            silent_s = 0.0 if changes != [] else silent_s + INTERVAL_S
            seq = feed.seq
            if changes is None:
                yield event("snapshot", feed.whole())
            elif changes:
                yield b"".join(event("change", change) for change in changes)
            elif silent_s >= HEARTBEAT_S:
                silent_s = 0.0
                yield COMMENT
    finally:
        feed.leave()


def event(name: str, data: bytes) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), data)
