"""Puts the parts together and serves: the only place that knows all of them."""

import asyncio
import gc
import logging
import resource
import secrets
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import httpx
import uvicorn
import uvloop
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from marsproxy import audit, http_client
from marsproxy.admin import admin
from marsproxy.app import App, own_routes
from marsproxy.backends import Backends
from marsproxy.children import Child
from marsproxy.config import EMBEDDED, Config, check_hints
from marsproxy.core.events import Event
from marsproxy.core.identity import IdentityLimits, SessionIndex
from marsproxy.core.policies import EngineOrder, policy_kind
from marsproxy.core.shared_state import SharedState
from marsproxy.discovery.endpoint import Endpoint
from marsproxy.discovery.found import discoveries_of
from marsproxy.discovery.source import read_source
from marsproxy.dispatcher import Dispatcher
from marsproxy.eventlog import EventLog, new_header
from marsproxy.hints import Hints
from marsproxy.http_limits import limited_protocol
from marsproxy.journal import Journal, MemoryJournal, Replica
from marsproxy.live.routes import add_live_routes
from marsproxy.live.watch import Watch
from marsproxy.loop_lag import watch_loop_lag
from marsproxy.metrics import Metrics
from marsproxy.metrics_page import MetricsView, OwnPage
from marsproxy.patch import PatchState
from marsproxy.relay import Relay
from marsproxy.stopping import StoppingServer
from marsproxy.store.opening import redis_journal
from marsproxy.store.redis_journal import RedisJournal
from marsproxy.store.redis_url import MEMORY
from marsproxy.store.seed import group_seed
from marsproxy.store.status import StoreStatus
from marsproxy.tasks import TaskOwner
from marsproxy.tenant_routes import DispatchedLimits, add_tenant_routes
from marsproxy.tenants.door import Door
from marsproxy.tenants.reload import TenantsFile
from marsproxy.tool_hosts import ToolHostsPoller
from marsproxy.wire.forms import NormalForms

log = logging.getLogger(__name__)

BACKLOG = 4096
"""Connections the kernel keeps waiting: a fleet of agents that starts at once."""


LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
GC_THRESHOLDS = (20_000, 50, 100)
"""Python's own (700, 10, 10) walk the session tables over and over: a fifth of the CPU of a short turn
(384 against 484 us, CPython 3.11). Nothing on the path of a request makes cycles that grow."""


def serve(config: Config) -> None:
    """Run the proxy until it is told to stop."""
    prepare_process(config)
    uvloop.run(_serve(config))


def prepare_process(config: Config) -> None:
    """What concerns the whole process, before its loop starts."""
    _allow_open_files()
    gc.set_threshold(*GC_THRESHOLDS)
    logging.basicConfig(level=config.log_level.upper(), format=LOG_FORMAT)
    for chatty in ("httpx", "asyncio", "uvicorn"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    # It warns of each request that is no HTTP: as many lines a second as somebody cares to send.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    audit.begin(config.admin.audit_log)


def _allow_open_files() -> None:
    """Every client and every request to a backend is one; many systems allow 1,024 unless asked for more."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _serve(config: Config) -> None:
    async with started_backends(config) as urls:
        await Server(config, urls, await _part(config)).serve()


@asynccontextmanager
async def started_backends(config: Config) -> AsyncIterator[list[str]]:
    """Their URLs; those that are started here end with the block."""
    async with AsyncExitStack() as stack:
        order = policy_kind(config.policy).engine_order
        yield [await _backend_url(backend, order, stack) for backend in config.backends]


async def _backend_url(backend: str, order: EngineOrder, stack: AsyncExitStack) -> str:
    if backend != EMBEDDED:
        return backend
    engine = Child("loadgen", "engine", "--port", "0", "--scheduling-policy", order)
    stack.push_async_callback(engine.stop)
    return await engine.start()


@dataclass(frozen=True, slots=True)
class Part:
    """What makes a proxy one of several; by itself, nothing does."""

    journal_of: Callable[[Replica], Journal] = MemoryJournal
    forms_seed: int = field(default_factory=lambda: secrets.randbits(63))
    """The same in all that share a journal: digests of bodies are compared."""
    page: Callable[[Metrics], MetricsView] = OwnPage


async def _part(config: Config) -> Part:
    return Part() if config.store.url.reveal() == MEMORY else Part(forms_seed=await group_seed(config))


class Server(StoppingServer):
    """uvicorn around the proxy. Says where it listens once it does.

    Args:
        bound: where to listen; a socket of its own if there is none.
    """

    def __init__(
        self,
        config: Config,
        backend_urls: list[str],
        part: Part | None = None,
        bound: socket.socket | None = None,
    ) -> None:
        self.proxy = Proxy(config, backend_urls, part or Part(), is_leaving=self.is_leaving)
        super().__init__(
            uvicorn.Config(
                self.proxy.app,
                http=limited_protocol(config.listen, is_leaving=self.is_leaving),
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                date_header=False,
                backlog=BACKLOG,
                timeout_keep_alive=round(config.listen.keep_alive_s),
            ),
            config.stop,
            self.proxy.dispatcher.leave,
        )
        self._socket = bound or _bind(config.listen.host, config.listen.port)
        self.url = "http://{}:{}".format(*self._socket.getsockname()[:2])

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """
        Raises:
            ConfigError: the policy needs more of a backend than it has.
        """
        with self._socket:
            await self.proxy.check_backends()
            await super().serve([self._socket])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self.listens()

    def listens(self) -> None:
        say_ready(self.url)


def say_ready(url: str) -> None:
    """The line that whoever started the program waits for."""
    print(f"marsproxy ready on {url}", flush=True)  # noqa: T201


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=BACKLOG)


class Proxy:
    """One proxy process: policy, relay and everything that runs beside them."""

    def __init__(
        self,
        config: Config,
        backend_urls: list[str],
        part: Part,
        *,
        is_leaving: Callable[[], bool],
    ) -> None:
        self._config = config
        sources = [read_source(url) for url in backend_urls]
        fixed = [Endpoint(source.url) for source in sources if source.way == "static"]
        self.tasks = TaskOwner()
        self.metrics = Metrics(CollectorRegistry())
        self._discoveries = discoveries_of(sources, config.discovery, self.metrics)
        hints = Hints()
        self.backends = Backends(config, self.metrics, hints, fixed)
        names = tuple(each.name for each in self.backends)
        self._event_log = _event_log(config, names)
        if self._event_log is not None:
            self.metrics.watch_event_log(self._event_log)
        self._timer = Timer(lambda: self.dispatcher.journal.now())
        self.store_status = StoreStatus()
        state = SharedState(
            policy_kind(config.policy).make(config.policy_settings, names),
            SessionIndex(_identity_limits(config), salt=secrets.token_bytes(8)),
        )
        watch = Watch()
        self.dispatcher = Dispatcher(
            state,
            self._journal_of(part),
            self.metrics,
            self._event_log,
            hints,
            set_timer=self._timer.set,
            watch=watch,
        )
        normal_forms = NormalForms(seed=part.forms_seed)
        door, file = Door(), config.tenants.file
        self.tenants = None if file is None else TenantsFile(file, door, self.metrics)
        relay = Relay(config, self.backends, self.dispatcher, normal_forms, self.metrics, self.tasks, door)
        own = own_routes(
            config,
            self.dispatcher,
            self.backends,
            part.page(self.metrics),
            self._lifespan,
            door,
            store=self.store_status,
            is_leaving=is_leaving,
        )
        add_tenant_routes(own, admin(config.admin.token), self.dispatcher, self.tenants)
        add_live_routes(own, config, self.dispatcher, watch, door, is_leaving=is_leaving)
        self.app = App(own, relay, body_timeout_s=config.listen.body_timeout_s)

    def _journal_of(self, part: Part) -> Callable[[Replica], Journal]:
        if self._config.store.url.reveal() == MEMORY:
            return part.journal_of

        def opened(replica: Replica) -> Journal:
            journal = redis_journal(self._config, replica, part.forms_seed)
            self.store_status = journal.status
            return journal

        return opened

    async def check_backends(self) -> None:
        """
        Raises:
            ConfigError: the policy needs the patch, and not every backend has it.
        """
        if not policy_kind(self._config.policy).needs_hints:
            return
        async with self._client() as client:
            found = {each.name: await each.patch_client(client).ask() for each in self.backends}
        lacking = {
            name: f"{finding.state.value}: {finding.why}"
            for name, finding in found.items()
            if finding.state is not PatchState.WORKING
        }
        check_hints(self._config.policy, lacking)

    @asynccontextmanager
    async def _lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack, self._client() as client:
            stack.callback(self._close_event_log)
            if isinstance(self.dispatcher.journal, RedisJournal):
                await stack.enter_async_context(self.dispatcher.journal.open())
            await self.backends.open(self.dispatcher, client, self._discoveries)
            stack.push_async_callback(self.backends.close)
            stack.callback(self._timer.cancel)
            stack.push_async_callback(self.tasks.close)
            if self.tenants is not None:
                limits = DispatchedLimits(self.dispatcher)
                self.tenants.share(limits)  # before the first request
                self.tasks.spawn("tenants", self.tenants.run(limits))
            self.tasks.spawn("loop-lag", watch_loop_lag(self.metrics.loop_lagged))
            if self._config.gateway.url is not None:
                self.tasks.spawn(
                    "tool-hosts", self._tool_hosts_poller(self._config.gateway.url, client).run()
                )
            yield

    def _tool_hosts_poller(self, url: str, client: httpx.AsyncClient) -> ToolHostsPoller:
        token = self._config.gateway.token
        return ToolHostsPoller(
            client,
            self._tell_if_leading,
            url=url,
            token=None if token is None else token.reveal(),
            interval_s=self._config.backend.telemetry_interval_s,
        )

    def _tell_if_leading(self, event: Event) -> None:
        """What every replica sees is told by one."""
        if self.dispatcher.journal.leads:
            self.dispatcher.tell(event)

    def _client(self) -> httpx.AsyncClient:
        """For all that is no request of an agent."""
        timeout_s = self._config.backend.telemetry_timeout_s
        return http_client.client(timeout_s)

    def _close_event_log(self) -> None:
        if self._event_log is not None:
            self._event_log.close()


class Timer:
    """The one timer that the policy asks for.

    Args:
        now: the journal's clock, which times are on.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._handle: asyncio.TimerHandle | None = None

    def set(self, at_s: float, callback: Callable[[], None]) -> None:
        """Replaces an earlier one."""
        self.cancel()
        loop = asyncio.get_running_loop()
        self._handle = loop.call_later(max(0.0, at_s - self._now()), callback)

    def cancel(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None


def _event_log(config: Config, backends: tuple[str, ...]) -> EventLog | None:
    settings = config.event_log
    if settings.dir is None:
        return None
    header = new_header(config.policy, config.policy_settings, backends)
    return EventLog(settings.dir, settings.max_file_mb * 1_000_000, settings.max_files, header)


def _identity_limits(config: Config) -> IdentityLimits:
    sessions = config.sessions
    return IdentityLimits(sessions=sessions.max_sessions, idle_s=sessions.idle_expiry_s)
