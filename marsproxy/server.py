"""Puts the parts together and serves: the only place that knows all of them."""

import asyncio
import gc
import logging
import resource
import secrets
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import httpx
import uvicorn
import uvloop
from fastapi import FastAPI
from httpx_aiohttp import AiohttpTransport
from prometheus_client import CollectorRegistry

from marsproxy import errors
from marsproxy.app import App, own_routes
from marsproxy.backend_address import BackendAddress
from marsproxy.backend_watch import BackendWatch, Cadence
from marsproxy.children import Child
from marsproxy.config import EMBEDDED, Config, check_hints
from marsproxy.core.identity import IdentityLimits, SessionIndex
from marsproxy.core.policies import EngineOrder, policy_kind
from marsproxy.dispatcher import Dispatcher
from marsproxy.eventlog import EventLog, new_header
from marsproxy.headroom import MetricsPage
from marsproxy.hints import Hints, HintSender
from marsproxy.http_limits import limited_protocol
from marsproxy.loop_lag import watch_loop_lag
from marsproxy.metrics import Metrics
from marsproxy.patch import BackendPatch, PatchState
from marsproxy.patch_client import PatchClient
from marsproxy.relay import Relay
from marsproxy.tasks import TaskOwner
from marsproxy.tool_hosts import ToolHostsPoller
from marsproxy.upstream import ConnectionEvents, Upstream
from marsproxy.wire.forms import NormalForms

log = logging.getLogger(__name__)

GRACE_S = 10.0
"""How long a stop waits for answers under way before it cuts them."""
BACKLOG = 4096
"""Connections the kernel keeps waiting: a fleet of agents that starts at once."""


LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
GC_THRESHOLDS = (20_000, 50, 100)
"""Python's own (700, 10, 10) walk the session tables over and over: a fifth of the CPU of a short turn
(384 against 484 us, CPython 3.11). Nothing on the path of a request makes cycles that grow."""


def serve(config: Config) -> None:
    """Run the proxy until it is told to stop."""
    _allow_open_files()
    gc.set_threshold(*GC_THRESHOLDS)
    logging.basicConfig(level=config.log_level.upper(), format=LOG_FORMAT)
    for chatty in ("httpx", "asyncio", "uvicorn"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    uvloop.run(_serve(config))


def _allow_open_files() -> None:
    """Every client and every request to a backend is one; many systems allow 1,024 unless asked for more."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _serve(config: Config) -> None:
    async with AsyncExitStack() as stack:
        order = policy_kind(config.policy).engine_order
        urls = [await _backend_url(backend, order, stack) for backend in config.backends]
        await Server(config, urls).serve()


async def _backend_url(backend: str, order: EngineOrder, stack: AsyncExitStack) -> str:
    if backend != EMBEDDED:
        return backend
    engine = Child("loadgen", "engine", "--port", "0", "--scheduling-policy", order)
    stack.push_async_callback(engine.stop)
    return await engine.start()


class Server(uvicorn.Server):
    """uvicorn around the proxy. Says where it listens once it does."""

    def __init__(self, config: Config, backend_urls: list[str]) -> None:
        self.proxy = Proxy(config, backend_urls)
        super().__init__(
            uvicorn.Config(
                self.proxy.app,
                http=limited_protocol(config.listen),
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                date_header=False,
                backlog=BACKLOG,
                timeout_keep_alive=round(config.listen.keep_alive_s),
                timeout_graceful_shutdown=round(GRACE_S),
            )
        )
        self._socket = _bind(config.listen.host, config.listen.port)
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
            print(f"marsproxy ready on {self.url}", flush=True)  # noqa: T201


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=BACKLOG)


class Proxy:
    """One proxy process: policy, relay and everything that runs beside them."""

    def __init__(self, config: Config, backend_urls: list[str]) -> None:
        self._config = config
        self._urls = {errors.public_name(url): url for url in backend_urls}
        self.tasks = TaskOwner()
        self.metrics = Metrics(CollectorRegistry())
        self.upstreams = {
            name: _upstream(name, url, config, self.metrics.backend(url)) for name, url in self._urls.items()
        }
        self.patches = {
            name: BackendPatch(name, self.metrics.backend(url).patch) for name, url in self._urls.items()
        }
        self.hint_senders = [self._hint_sender(patch) for patch in self.patches.values()]
        self._event_log = _event_log(config, tuple(self._urls))
        if self._event_log is not None:
            self.metrics.watch_event_log(self._event_log)
        self._timer = Timer()
        self.dispatcher = Dispatcher(
            policy_kind(config.policy).make(config.policy_settings, tuple(self._urls)),
            SessionIndex(_identity_limits(config), salt=secrets.token_bytes(8)),
            self.metrics,
            self._event_log,
            Hints(self.hint_senders),
            clock=time.monotonic,
            set_timer=self._timer.set,
        )
        normal_forms = NormalForms(seed=secrets.randbits(63))
        relay = Relay(
            config, self.upstreams, self.patches, self.dispatcher, normal_forms, self.metrics, self.tasks
        )
        own = own_routes(config, self.dispatcher, self.patches, self.metrics, self._lifespan)
        self.app = App(own, relay, body_timeout_s=config.listen.body_timeout_s)

    async def check_backends(self) -> None:
        """
        Raises:
            ConfigError: the policy needs the patch, and not every backend has it.
        """
        if not policy_kind(self._config.policy).needs_hints:
            return
        async with self._client() as client:
            found = {name: await self._patch_client(name, client).ask() for name in self._urls}
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
            for upstream in self.upstreams.values():
                await upstream.open()
                stack.push_async_callback(upstream.close)
            stack.callback(self._timer.cancel)
            stack.push_async_callback(self.tasks.close)
            self.tasks.spawn("loop-lag", watch_loop_lag(self.metrics.loop_lagged))
            for name in self._urls:
                self.tasks.spawn(f"watch-{name}", self._watch(name, client).run())
            for sender in self.hint_senders:
                patch_client = self._patch_client(sender.backend, client)
                self.tasks.spawn(
                    f"hints-{sender.backend}", sender.run(patch_client, self._knows, self.dispatcher.tell)
                )
            if self._config.gateway.url is not None:
                self.tasks.spawn(
                    "tool-hosts", self._tool_hosts_poller(self._config.gateway.url, client).run()
                )
            yield

    def _tool_hosts_poller(self, url: str, client: httpx.AsyncClient) -> ToolHostsPoller:
        token = self._config.gateway.token
        return ToolHostsPoller(
            client,
            self.dispatcher.tell,
            url=url,
            token=None if token is None else token.reveal(),
            interval_s=self._config.backend.telemetry_interval_s,
        )

    def _client(self) -> httpx.AsyncClient:
        """For all that is no request of an agent."""
        timeout_s = self._config.backend.telemetry_timeout_s
        return httpx.AsyncClient(transport=AiohttpTransport(), timeout=timeout_s, trust_env=False)

    def _patch_client(self, name: str, client: httpx.AsyncClient) -> PatchClient:
        return PatchClient(client, self._address(name))

    def _address(self, name: str) -> BackendAddress:
        key = self._config.backend.api_key
        return BackendAddress.of(self._urls[name], None if key is None else key.reveal())

    def _watch(self, name: str, client: httpx.AsyncClient) -> BackendWatch:
        backend = self._config.backend
        return BackendWatch(
            self.patches[name],
            self._patch_client(name, client),
            MetricsPage(name, client, self._address(name), kv_tokens=backend.kv_tokens),
            self.metrics.backend(name).patch,
            Cadence(backend.telemetry_interval_s, backend.headroom_interval_s),
            kv_tokens=backend.kv_tokens,
            clock=time.monotonic,
            knows=self._knows,
            tell=self.dispatcher.tell,
        )

    def _hint_sender(self, patch: BackendPatch) -> HintSender:
        sessions = self._config.sessions
        return HintSender(
            patch,
            self.metrics.backend(patch.backend).patch,
            max_sessions=sessions.max_sessions,
            expiry_s=sessions.idle_expiry_s,
            clock=time.monotonic,
        )

    def _knows(self, session_id: str) -> bool:
        return self.dispatcher.policy.sessions.get(session_id) is not None

    def _close_event_log(self) -> None:
        if self._event_log is not None:
            self._event_log.close()


class Timer:
    """The one timer that the policy asks for."""

    def __init__(self) -> None:
        self._handle: asyncio.TimerHandle | None = None

    def set(self, at_s: float, callback: Callable[[], None]) -> None:
        """Replaces an earlier one. ``at_s`` is on ``time.monotonic``'s clock, like every loop's."""
        self.cancel()
        loop = asyncio.get_running_loop()
        self._handle = loop.call_later(max(0.0, at_s - time.monotonic()), callback)

    def cancel(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None


def _upstream(name: str, url: str, config: Config, events: ConnectionEvents) -> Upstream:
    backend = config.backend
    return Upstream(
        name,
        url,
        connect_timeout_s=backend.connect_timeout_s,
        read_timeout_s=backend.read_timeout_s,
        keepalive_s=backend.keepalive_s,
        events=events,
    )


def _event_log(config: Config, backends: tuple[str, ...]) -> EventLog | None:
    settings = config.event_log
    if settings.dir is None:
        return None
    header = new_header(config.policy, config.policy_settings, backends)
    return EventLog(settings.dir, settings.max_file_mb * 1_000_000, settings.max_files, header)


def _identity_limits(config: Config) -> IdentityLimits:
    sessions = config.sessions
    return IdentityLimits(sessions=sessions.max_sessions, idle_s=sessions.idle_expiry_s)
