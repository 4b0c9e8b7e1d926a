"""The proxy as one ASGI application: its own few routes, and everything else relayed.

The relay is reached without routing or middleware in between; only the proxy's own routes go through
FastAPI.
"""

import asyncio
import hmac
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar

import msgspec
from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from marsproxy import errors
from marsproxy.admin import AdminCheck, admin
from marsproxy.backend_routes import add_backend_routes, backend_view
from marsproxy.backends import Backends
from marsproxy.client import BodyTooLarge, BodyTooSlow, Client, ClientGone, Message, Receive, Scope, Send
from marsproxy.config import Config
from marsproxy.core.events import ToolHostsObserved, ToolObserved
from marsproxy.core.headroom import MAX_TOOL_HOSTS
from marsproxy.core.identity import named_session_id
from marsproxy.core.scheduling import SchedulingPolicy
from marsproxy.core.sessions import SessionState
from marsproxy.dispatcher import Dispatcher
from marsproxy.errors import Refusal, Refuse
from marsproxy.metrics import Metrics
from marsproxy.metrics_page import MetricsView
from marsproxy.relay import Relay, refuse
from marsproxy.store.status import StoreStatus
from marsproxy.tenant_routes import viewer
from marsproxy.tenants.door import Door, NotAdmitted
from marsproxy.wire.normal import UNREADABLE
from marsproxy.wire.session_ids import valid_id

T = TypeVar("T")

OWN_PATHS = frozenset(("/metrics", "/healthz", "/readyz", "/finish_session", "/programs/release"))
OWN_PREFIX = "/mars/"
MAX_TOOL_EVENTS = 10_000
"""In one report of a gateway."""
MAX_OWN_BODY_BYTES = 8 << 20
"""For the proxy's own routes: the largest report at 800 bytes an event."""
MAX_LISTED_SESSIONS = 10_000
"""In one answer: about 2 MB, encoded in some 50 ms."""


class ToolReport(msgspec.Struct):
    """What a gateway posts to ``/mars/v1/tools``."""

    events: list[ToolObserved] = []
    headroom: ToolHostsObserved | None = None
    hosts: list[ToolHostsObserved] = []


class EndOfSession(msgspec.Struct):
    """What clients post to ``/finish_session`` or ``/programs/release``."""

    session_id: str | None = None
    program_id: str | None = None


class App:
    """Sends a request to the proxy's own routes or to the relay."""

    def __init__(self, own: FastAPI, relay: Relay, *, body_timeout_s: float) -> None:
        self._own = own
        self._relay = relay
        self._body_timeout_s = body_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._own(scope, receive, send)
        elif is_own(scope["path"]):
            await self._answer_own(scope, receive, send)
        else:
            await self._relayed(Client(scope, receive, send))

    async def _answer_own(self, scope: Scope, receive: Receive, send: Send) -> None:
        """FastAPI would wait for a body however long it takes, and keep it however large it is."""
        client = Client(scope, receive, send)
        try:
            body = await client.read_body(MAX_OWN_BODY_BYTES, self._body_timeout_s)
        except ClientGone:
            return
        except BodyTooLarge:
            await refuse(client, None, errors.body_too_large(MAX_OWN_BODY_BYTES))
        except BodyTooSlow:
            await refuse(client, None, errors.body_too_slow(self._body_timeout_s))
        else:
            await self._own(scope, _replaying(body, receive), send)

    async def _relayed(self, client: Client) -> None:
        try:
            await self._relay.handle(client)
        except asyncio.CancelledError:
            # The root of the request's task, and a stopping server that has waited long enough: what
            # went further would only be logged, with a traceback for each open request.
            client.cut()


def is_own(path: str) -> bool:
    return path in OWN_PATHS or path.startswith(OWN_PREFIX)


def _replaying(body: bytes, receive: Receive) -> Receive:
    first: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return first.pop() if first else await receive()

    return receive_again


def own_routes(
    config: Config,
    dispatcher: Dispatcher,
    backends: Backends,
    metrics: MetricsView,
    lifespan: Any,
    door: Door,
    *,
    store: StoreStatus,
    is_leaving: Callable[[], bool],
) -> FastAPI:
    """Health, metrics, sessions, and the ways to say that a session is over.

    Every route is a coroutine: FastAPI would run a plain function in a thread, beside the policy.
    """
    api = FastAPI(title="MARS proxy", docs_url=None, redoc_url=None, openapi_url="/mars/v1/openapi.json")
    api.router.lifespan_context = lifespan
    answer_in_our_shape(api)
    is_admin = admin(config.admin.token)
    from_gateway = Depends(_bearer(config, door, is_admin))
    asks = Depends(viewer(door, is_admin))

    @api.get("/healthz")
    async def healthz() -> dict[str, str]:
        """The process serves requests."""
        return {"status": "ok"}

    @api.get("/readyz")
    async def readyz(response: Response) -> dict[str, Any]:
        """At least one backend answers, this replica has joined the others or stands alone, and it means to
        stay; says what is known of each backend, and of the store."""
        now, policy = dispatcher.journal.now(), dispatcher.policy
        views = {
            name: backend_view(state, backends.get(name), now) for name, state in policy.backends.items()
        }
        status = "ready" if any(view["reachable"] for view in views.values()) else "no backend answers"
        if not store.is_ready:
            status = "joining the other replicas"
        if is_leaving():
            status = "stopping"
        response.status_code = 200 if status == "ready" else 503
        return {"status": status, "store": _store_view(store), "backends": views}

    @api.get("/metrics")
    async def metrics_page(request: Request) -> Response:
        metrics.own.store.show(store)
        show_state(dispatcher.policy, metrics.own, config, dispatcher.journal.now())
        content_type, page = await metrics.render(request.headers.get("accept", ""))
        return Response(page, headers={"content-type": content_type})

    @api.get("/mars/v1/sessions")
    async def sessions(
        tenant: Annotated[str | None, asks],
        limit: Annotated[int, Query(ge=1, le=MAX_LISTED_SESSIONS)] = 1000,
    ) -> dict[str, Any]:
        """The most recently active sessions that the caller may see."""
        known = [each for each in dispatcher.policy.sessions if tenant in (None, each.tenant)]
        return {"total": len(known), "sessions": [_session_view(s) for s in reversed(known[-limit:])]}

    @api.get("/mars/v1/sessions/{session_id}")
    async def session(session_id: str, tenant: Annotated[str | None, asks]) -> dict[str, Any]:
        known = dispatcher.policy.sessions.get(session_id)
        if known is None or tenant not in (None, known.tenant):
            raise Refuse(errors.not_found("session; it may have expired"))
        return _session_view(known)

    @api.delete("/mars/v1/sessions/{session_id}", status_code=204)
    async def end_session(session_id: str, tenant: Annotated[str | None, asks]) -> Response:
        """The session is over: its budget goes to somebody else at once. Saying it twice is fine, and of a
        session that is another tenant's nobody learns that it is there."""
        known = dispatcher.policy.sessions.get(session_id)
        if tenant is None or (known is not None and known.tenant == tenant):
            dispatcher.end_session(session_id)
        return Response(status_code=204)

    @api.post("/finish_session")
    @api.post("/programs/release")
    async def end_named_session(request: Request) -> dict[str, bool]:
        """The same by the client's own id, the way clients of other agent-aware routers say it."""
        said = _decoded(await request.body(), EndOfSession)
        name = valid_id(said.session_id) or valid_id(said.program_id)
        if name is None:
            raise Refuse(errors.bad_request("bad_body", "session_id or program_id: a session's id is needed"))
        try:
            tenant = door.admit(request.headers.raw).tenant
        except NotAdmitted as exc:
            raise Refuse(exc.refusal) from None
        return {"released": dispatcher.end_session(named_session_id(tenant, name))}

    @api.post("/mars/v1/tools", status_code=204, dependencies=[from_gateway])
    async def tools(request: Request) -> Response:
        """What a gateway saw its hosts do."""
        report = _decoded(await request.body(), ToolReport)
        if len(report.events) > MAX_TOOL_EVENTS:
            raise Refuse(errors.bad_request("bad_body", f"events: at most {MAX_TOOL_EVENTS} in one report"))
        if len(report.hosts) > MAX_TOOL_HOSTS:
            raise Refuse(errors.bad_request("bad_body", f"hosts: at most {MAX_TOOL_HOSTS} in one report"))
        for event in report.events:
            dispatcher.tell(event)
        for host in report.hosts:
            dispatcher.tell(host)
        if report.headroom is not None and not report.hosts:
            dispatcher.tell(report.headroom)
        return Response(status_code=204)

    add_backend_routes(api, config, dispatcher, backends)
    return api


def show_state(policy: SchedulingPolicy, metrics: Metrics, config: Config, now: float) -> None:
    """Set the gauges that mirror the policy; done when somebody looks."""
    metrics.set_sessions(Counter(session.phase.value for session in policy.sessions))
    metrics.tools.set_hosts(policy.tool_hosts.last or ToolHostsObserved())
    stale_s = config.admission.telemetry_stale_s
    pools = {b.name: b.known_pool_tokens(now, stale_s) for b in policy.backends.values()}
    metrics.set_fallback_cap(None in pools.values())
    metrics.set_tasks(len(asyncio.all_tasks()))
    reserved, budgets = policy.reserved_tokens(now), policy.budget_tokens(now)
    for backend in policy.backends.values():
        pool = pools[backend.name]
        shown = metrics.backend(backend.name)
        age_s = None if backend.observed_at_s is None else now - backend.observed_at_s
        shown.set_telemetry(age_s, is_fresh=backend.is_fresh(now, stale_s))
        shown.set_kv_tokens(reserved.get(backend.name), budgets.get(backend.name), pool)


def _bearer(config: Config, door: Door, is_admin: AdminCheck) -> Callable[[Request], Awaitable[None]]:
    """Asks for the gateway's token where one is configured. Where none is, tenants are kept out all the same:
    what a gateway tells decides about everybody's turns."""

    async def check(request: Request) -> None:
        if config.gateway.token is None:
            if door.is_guarded:
                await is_admin(request)
            return
        wanted = f"Bearer {config.gateway.token.reveal()}".encode()
        given = request.headers.get("authorization", "").encode()
        if not hmac.compare_digest(wanted, given):
            raise Refuse(errors.unauthorized("authorization: the gateway's bearer token is needed"))

    return check


def _decoded(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as exc:  # says what is wrong where, and quotes nothing
        raise Refuse(errors.bad_request("bad_body", str(exc))) from exc
    except UNREADABLE as exc:
        raise Refuse(errors.bad_request("bad_body", "the body is not JSON")) from exc


def answer_in_our_shape(api: FastAPI) -> None:
    """What FastAPI itself refuses gets the shape of every other refusal."""

    @api.exception_handler(Refuse)
    async def refused(_: Request, exc: Refuse) -> Response:
        return _refusal(exc.refusal)

    @api.exception_handler(HTTPException)
    async def not_routed(_: Request, exc: HTTPException) -> Response:
        if exc.status_code == 405:
            return _refusal(errors.method_not_allowed((exc.headers or {}).get("Allow", "")))
        return _refusal(errors.not_found("path"))

    @api.exception_handler(RequestValidationError)
    async def invalid(_: Request, exc: RequestValidationError) -> Response:
        wrong = "; ".join(f"{error['loc'][-1]}: {error['msg']}" for error in exc.errors())
        return _refusal(errors.bad_request("bad_parameter", wrong))


def _refusal(refusal: Refusal) -> Response:
    answer = errors.as_answer(refusal)
    headers = {name.decode(): value.decode() for name, value in answer.headers}
    return Response(answer.body, answer.status, headers)


def _store_view(store: StoreStatus) -> dict[str, Any]:
    return {
        "state": store.state.value,
        "members": store.members,
        "leads": store.is_leader,
        "lag_s": None if store.lag_s is None else round(store.lag_s, 4),
        "separations": store.separations,
        "given_up": store.given_up,
    }


def _session_view(session: SessionState) -> dict[str, Any]:
    return {
        "id": session.id,
        "phase": session.phase.value,
        "counted": session.is_counted,
        "backend": session.backend,
        "turns": session.turns,
        "context_tokens": session.context_tokens,
        "peak_tokens": session.peak_tokens,
        "open_turns": len(session.open_turns),
        "parent": session.parent_id,
    }
