"""The one configuration tree of the proxy: what can be set, in which unit, and why that default.

Owns names, defaults and allowed values, nothing else: it reads neither file nor environment
(``marsproxy.config_sources`` does) and starts nothing. A tree that exists is valid; ``ConfigError``
names the key and what it allows. The docstring under a field is its help text on the command line and
its comment in ``--print-config``.

"Lab" in the sources below is this project's simulation study of admission policies on bootstrapped
coding-agent and interactive traces (stock queueing against the policy, several seeds).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, is_dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints
from urllib.parse import urlsplit

from cyclopts import Parameter

from marsproxy.core.policies import POLICIES, PolicyKind, policy_kind
from marsproxy.core.settings import (
    AdmissionSettings,
    ConfigError,
    PolicySettings,
    Range,
    SessionSettings,
    check_ranges,
)
from marsproxy.discovery.source import read_source
from marsproxy.errors import public_name
from marsproxy.store.redis_url import check_store_url

EMBEDDED = "embedded"
"""Stands for a backend that ``serve`` starts itself: the engine model, no GPU."""
MAX_WORKERS = Range(1, 64)
"""Far beyond what pays: every worker follows what all of them do."""


class Secret:
    """A string that no repr, log line or printed configuration shows."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def __repr__(self) -> str:
        return "Secret(not shown)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def reveal(self) -> str:
        return self._value


def _secret_from_tokens(_: type, tokens: Any) -> Secret:
    [token] = tokens
    if token.source == "cli":
        raise ConfigError(
            "a secret on the command line shows in the process list; allowed: file or environment"
        )
    return Secret(token.value)


class StoreUrl(Secret):
    """Where the store is. A password in it is shown nowhere."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"StoreUrl({self.shown!r})"

    @property
    def has_password(self) -> bool:
        return ":" in self.reveal().rpartition("@")[0].partition("://")[2]

    @property
    def shown(self) -> str:
        scheme, _, rest = self.reveal().partition("://")
        user_info, at, where = rest.rpartition("@")
        return (
            f"{scheme}://{user_info.partition(':')[0]}:...{at}{where}" if self.has_password else self.reveal()
        )


def _store_url_from_tokens(_: type, tokens: Any) -> StoreUrl:
    [token] = tokens
    url = StoreUrl(token.value)
    if token.source == "cli" and url.has_password:
        raise ConfigError(
            "store.url: a password on the command line shows in the process list; "
            "allowed: file or environment (MARS_STORE_URL)"
        )
    return url


OptionalSecret = Annotated[
    Secret | None, Parameter(converter=_secret_from_tokens, n_tokens=1, accepts_keys=False, negative=())
]


def check_http_url(url: str, key: str, also: str = "") -> None:
    try:
        parts = urlsplit(url)
        is_usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_usable = False
    if not is_usable:
        raise ConfigError(
            f"{key}: not a usable URL; allowed: http://HOST[:PORT] or https://HOST[:PORT]{also}"
        )


def check_backend(text: str) -> None:
    if text == EMBEDDED:
        return
    try:
        read_source(text)
    except ValueError as exc:
        raise ConfigError(f"backends: {exc}, or the word {EMBEDDED}") from exc


@dataclass(frozen=True, slots=True)
class Listen:
    """The side that clients connect to."""

    host: Annotated[str, Parameter(alias="--host")] = "127.0.0.1"
    """Address to bind. Loopback unless told otherwise: the proxy has no accounts of its own."""
    port: Annotated[int, Parameter(alias="--port"), Range(0, 65535)] = 8080
    """TCP port; 0 takes a free one, which the ready line names."""
    max_connections: Annotated[int | None, Range(1)] = None
    """Open client connections; one more is answered 503 and closed. Unset: the process's limit of open
    files is the bound."""
    max_header_bytes: Annotated[int, Range(1024, 1 << 24)] = 65536
    """Bytes of request line and headers together. Twice what nginx takes by default
    (large_client_header_buffers, 4 x 8 KiB), and uvicorn's own bound with h11."""
    header_timeout_s: Annotated[float, Range(0.01, 3600)] = 10.0
    """Seconds from the first byte of a request, or from connecting, to the end of its headers. Clients
    write headers in one piece; only a broken or hostile one needs longer."""
    body_timeout_s: Annotated[float, Range(0.01, 3600)] = 120.0
    """Seconds from the end of the headers to the last byte of the body: the largest body at 0.5 MB/s."""
    write_timeout_s: Annotated[float, Range(0.01, 86_400)] = 300.0
    """Seconds that a client may refuse to read its answer before its connection is cut; at most twice that.
    Its turn would hold KV memory for as long as it likes otherwise."""
    max_body_bytes: Annotated[int, Range(1024, 1 << 32)] = 64 * 1024 * 1024
    """Bytes of one request body. A million-token history with its images fits into 64 MiB."""
    keep_alive_s: Annotated[float, Range(0, 3600)] = 75.0
    """Seconds that an idle client connection stays open (nginx's keepalive_timeout). Longer than most tool
    gaps, so that a continuation finds its connection."""

    def __post_init__(self) -> None:
        check_ranges(self, "listen")


@dataclass(frozen=True, slots=True)
class Backend:
    """How every backend is spoken to."""

    connect_timeout_s: Annotated[float, Range(0.01, 600)] = 5.0
    """Seconds for TCP and TLS to come up. Nothing was sent yet, so another attempt is safe."""
    read_timeout_s: Annotated[float | None, Range(0.01)] = None
    """Seconds of silence from the backend before a turn fails. Unset: no bound, because a queued turn is
    silent for as long as the engine's queue is long, and the client has a timeout of its own."""
    keepalive_s: Annotated[float, Range(0, 3600)] = 4.0
    """Seconds that an idle connection to a backend is reused. vLLM closes its side after 5 s (0.28 to 0.33,
    VLLM_HTTP_TIMEOUT_KEEP_ALIVE): stop before it does."""
    telemetry_interval_s: Annotated[float, Range(0.05, 60)] = 1.0
    """Seconds between two readings of a backend's /metrics."""
    headroom_interval_s: Annotated[float, Range(0.02, 60)] = 0.2
    """Seconds between two readings of the headroom of a backend that has the backend patch, which takes the
    place of its /metrics: a few milliseconds from shared memory, so that what a lease or a turn gave back is
    seen a few engine steps later."""
    telemetry_timeout_s: Annotated[float, Range(0.01, 60)] = 5.0
    """Seconds that one reading may take; later it counts as missed. On a starved machine vLLM (0.32) has
    taken 1 to 6 s in the middle of long answers, and is well."""
    api_key: OptionalSecret = None
    """Secret. Replaces the Authorization of every request to a backend. Unset: the client's is passed on."""
    models_interval_s: Annotated[float, Range(0.05, 3600)] = 10.0
    """Seconds between two readings of a backend's /v1/models, where there is more than one backend. Models
    are loaded and unloaded (LoRA adapters) by people and programs, not by requests."""
    failovers: Annotated[int, Range(0, 8)] = 1
    """How often a turn that a backend did not take goes to another, as long as no byte of an answer has
    reached its client. More than once helps nobody: what fails on two servers is likely the request's own
    fault."""
    breaker_failures: Annotated[int, Range(1, 1000)] = 5
    """Failures in a row (no connection, no answer, status 500 and above) after which a backend gets no
    requests for a while, as long as there is another (Envoy's outlier detection: consecutive_5xx is 5)."""
    breaker_open_s: Annotated[float, Range(0.05, 3600)] = 5.0
    """Seconds before such a backend is tried again (Hystrix: sleepWindowInMilliseconds is 5000)."""
    breaker_max_open_s: Annotated[float, Range(0.05, 3600)] = 60.0
    """To this it doubles with each trial that fails. vLLM takes a minute and more to start."""
    kv_tokens: Annotated[int | None, Range(1)] = None
    """Tokens that fit into a backend's KV cache. Unset: read from vllm:cache_config_info; set it where a
    backend does not publish that."""

    def __post_init__(self) -> None:
        check_ranges(self, "backend")
        if self.breaker_max_open_s < self.breaker_open_s:
            raise ConfigError(
                f"backend.breaker_max_open_s: {self.breaker_max_open_s} is not allowed; "
                f"allowed: at least backend.breaker_open_s ({self.breaker_open_s})"
            )


@dataclass(frozen=True, slots=True)
class Identity:
    """How requests are joined to sessions."""

    extra_session_headers: tuple[str, ...] = ()
    """Request headers that carry a session id, besides the built-in ones; first match wins."""

    def __post_init__(self) -> None:
        for name in self.extra_session_headers:
            if not name.isascii() or not name.replace("-", "").replace("_", "").isalnum():
                raise ConfigError(
                    f"identity.extra_session_headers: {name!r} is not a header name; "
                    "allowed: letters, digits, '-' and '_'"
                )


@dataclass(frozen=True, slots=True)
class Hold:
    """What a held client sees."""

    sse_comment_interval_s: Annotated[float, Range(0.05, 300)] = 10.0
    """Seconds before a held streaming client gets its first SSE comment, and between comments: well below
    the 55 to 60 s after which common load balancers cut a silent connection."""

    def __post_init__(self) -> None:
        check_ranges(self, "hold")


@dataclass(frozen=True, slots=True)
class EventLog:
    """The record of every decision: counts and fingerprints, never text."""

    dir: Annotated[Path | None, Parameter(alias="--event-log")] = None
    """Directory for the files, made if missing. Unset: no event log."""
    max_file_mb: Annotated[int, Range(1, 10_000)] = 64
    """Size in MB (10^6 bytes) at which the next file is begun."""
    max_files: Annotated[int, Range(1, 10_000)] = 8
    """Files kept; the oldest goes. 8 x 64 MB is about a million and a half lines."""

    def __post_init__(self) -> None:
        check_ranges(self, "event_log")


@dataclass(frozen=True, slots=True)
class Gateway:
    """The tool-execution gateway whose events and headroom are taken into account."""

    url: Annotated[str | None, Parameter(alias="--gateway")] = None
    """Base URL, to ask it how busy its hosts are. Not needed for a gateway that was told this proxy's address
    (mars-gateway serve --proxy): that one reports by itself."""
    token: OptionalSecret = None
    """Secret shared with the gateway: requests to it carry it as their bearer token, and so must its reports
    (the gateway's MARS_GATEWAY_PROXY_TOKEN). Unset: none is sent, and none is asked for."""

    def __post_init__(self) -> None:
        if self.url is not None:
            check_http_url(self.url, "gateway.url")


@dataclass(frozen=True, slots=True)
class Discovery:
    """How backends are found that are not given by address (docs/backends.md)."""

    interval_s: Annotated[float, Range(0.05, 3600)] = 30.0
    """Longest time in seconds between two DNS questions; a shorter TTL goes before it. 30 s is the TTL that
    Kubernetes' DNS gives its records."""
    dns_server: str | None = None
    """IP address, or ADDRESS:PORT, of the server to ask. Unset: those of /etc/resolv.conf."""
    kubernetes_url: str | None = None
    """Base URL of the Kubernetes API. Unset: that of the cluster in which the proxy runs."""
    kubernetes_dir: Path = Path("/var/run/secrets/kubernetes.io/serviceaccount")
    """Directory with the service account's token and ca.crt, where Kubernetes puts them."""

    def __post_init__(self) -> None:
        check_ranges(self, "discovery")
        if self.kubernetes_url is not None:
            check_http_url(self.kubernetes_url, "discovery.kubernetes_url")
        self.dns_address()

    def dns_address(self) -> tuple[str, int] | None:
        """Address and port of ``dns_server``."""
        if self.dns_server is None:
            return None
        try:
            parts = urlsplit(f"//{self.dns_server}")
            return str(ip_address(parts.hostname or "")), parts.port or 53
        except ValueError as exc:
            raise ConfigError(
                "discovery.dns_server: not an address; allowed: an IP address, also with :PORT"
            ) from exc


@dataclass(frozen=True, slots=True)
class Admin:
    """Who may drain backends and look at what concerns all tenants."""

    token: OptionalSecret = None
    """Secret. Admin routes ask for it as a bearer token. Unset: they are for clients on this machine, not for
    those that come through another proxy."""
    audit_log: Path | None = None
    """File that gets a line of JSON for each call of an admin route: who, what, and what came of it. It may
    be moved away to be rotated. Unset: the lines are among the others on stderr."""


@dataclass(frozen=True, slots=True)
class Tenants:
    """Who may use the proxy, and how much of it."""

    file: Annotated[Path | None, Parameter(alias="--tenants")] = None
    """TOML file that names the tenants, with their keys and limits (docs/tenants.md). It is read again when
    it changes. Unset: everybody may use the proxy, and keys are the backend's to check."""


@dataclass(frozen=True, slots=True)
class Stop:
    """How the proxy goes when it is told to (SIGTERM, Ctrl-C). Told a second time, it goes at once."""

    pause_s: Annotated[float, Range(0, 600)] = 0.0
    """Seconds in which /readyz is 503 already and everything is served still, so that a load balancer takes
    its clients elsewhere before the port closes: its probe interval times the failures that it wants to see.
    0 where nobody probes."""
    grace_s: Annotated[float, Range(0, 86_400)] = 600.0
    """Seconds that turns in flight have after that before they are cut. The official OpenAI and Anthropic
    clients wait 600 s for an answer: nobody waits any more for what is cut. A stop takes as long as the
    longest turn, and mostly much less."""

    def __post_init__(self) -> None:
        check_ranges(self, "stop")


@dataclass(frozen=True, slots=True)
class Store:
    """What replicas of this proxy share (docs/replicas.md)."""

    url: Annotated[
        StoreUrl,
        Parameter(
            alias="--store", converter=_store_url_from_tokens, n_tokens=1, accepts_keys=False, negative=()
        ),
    ] = field(default=StoreUrl("memory"))
    """Where it is: memory is this process alone; redis://HOST[:PORT][/DB], rediss:// with TLS, unix://PATH,
    redis+sentinel://HOST:PORT,HOST:PORT/SERVICE or redis+cluster://HOST:PORT,HOST:PORT, with USER:PASSWORD@
    in front of the host where needed (in file or environment only)."""
    group: str = "default"
    """Replicas of one name share a state, as far as code, policy and its settings are the same."""
    patience_s: Annotated[float, Range(0.1, 60)] = 2.0
    """Seconds without an answer of the store after which a replica goes on alone, and for which a start waits
    for it. Far above a round trip: a slow store is better than shares."""
    lease_s: Annotated[float, Range(0.5, 600)] = 5.0
    """Seconds without a word of a replica after which the others give it up, and its turns with it. Must be
    above the pauses of a healthy process; the longest is that of a checkpoint, which grows with the
    sessions."""

    replicas: Annotated[int, Range(1, 1000)] = 1
    """How many share the backends, for one that starts while the store is away and so knows of no others: it
    promises that part of the budgets until the store is back."""

    def __post_init__(self) -> None:
        check_ranges(self, "store")
        check_store_url(self.url.reveal())
        if not self.group or not self.group.isascii() or not self.group.replace("-", "").isalnum():
            raise ConfigError(
                f"store.group: {self.group!r} is not allowed; allowed: letters, digits and '-', at least one"
            )


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that ``marsproxy serve`` can be told."""

    backends: Annotated[tuple[str, ...], Parameter(alias="--backend")] = ()
    """Base URLs of the servers behind the proxy, or where to find them: dns+http://NAME:PORT, srv+http://NAME,
    k8s+http://SERVICE.NAMESPACE:PORT; or the word embedded for one that is started here."""
    policy: str = "mars"
    """Who decides about turns, by its name in the table of policies (docs/configuration.md)."""
    workers: Annotated[int, MAX_WORKERS] = 1
    """Processes that serve on the port together and share all state. One is enough until its core is full:
    each of them follows what all do, so two serve less than twice as much (docs/deployment.md)."""
    log_level: Literal["debug", "info", "warning"] = "info"
    """Least urgent lines on stderr. debug has one for every turn that goes, info for every turn that is held,
    warning for every one that is refused; no text, headers or keys in any of them."""
    listen: Listen = field(default_factory=Listen)
    backend: Backend = field(default_factory=Backend)
    admission: AdmissionSettings = field(default_factory=AdmissionSettings)
    sessions: SessionSettings = field(default_factory=SessionSettings)
    identity: Identity = field(default_factory=Identity)
    hold: Hold = field(default_factory=Hold)
    event_log: EventLog = field(default_factory=EventLog)
    gateway: Gateway = field(default_factory=Gateway)
    discovery: Discovery = field(default_factory=Discovery)
    admin: Admin = field(default_factory=Admin)
    tenants: Tenants = field(default_factory=Tenants)
    stop: Stop = field(default_factory=Stop)
    store: Store = field(default_factory=Store)

    def __post_init__(self) -> None:
        if self.workers not in MAX_WORKERS:
            raise ConfigError(f"workers: {self.workers} is not allowed; allowed: {MAX_WORKERS}")
        for url in self.backends:
            check_backend(url)
        check_live(self.policy, policy_kind(self.policy))
        if len(set(map(public_name, self.backends))) < len(self.backends):
            raise ConfigError("backends: the same host and port twice; allowed: each once")
        stale_s = self.admission.telemetry_stale_s
        for name in ("telemetry_interval_s", "headroom_interval_s"):
            interval_s = getattr(self.backend, name)
            if stale_s <= interval_s:
                raise ConfigError(
                    f"admission.telemetry_stale_s: {stale_s} is not allowed; "
                    f"allowed: more than backend.{name} ({interval_s})"
                )

    @property
    def policy_settings(self) -> PolicySettings:
        """What the policy is told; which of its parts work is the business of its name."""
        return PolicySettings(self.admission, self.sessions)


def live_policies(*, has_patch: bool = False) -> dict[str, PolicyKind]:
    """Those that are themselves in front of a stock vLLM, or of one that has the backend patch."""
    return {
        name: kind
        for name, kind in sorted(POLICIES.items())
        if not kind.needs_reprioritise and (has_patch or not kind.needs_hints)
    }


def check_live(name: str, kind: PolicyKind) -> None:
    """Raise ``ConfigError`` for a policy that is nothing without an engine that only the simulator has."""
    if kind.needs_reprioritise:
        raise ConfigError(
            f"policy: {name!r} needs an engine that changes the priority of a turn in flight, which no vLLM "
            f"does; allowed: {', '.join(live_policies(has_patch=True))} "
            f"(all of them under: loadgen simulate --policy {name})"
        )


def check_hints(policy: str, without_patch: Mapping[str, str]) -> None:
    """Raise ``ConfigError`` for a policy that is nothing without engines that do as it says.

    Args:
        without_patch: backends that take no hints, and why.
    """
    if without_patch and policy_kind(policy).needs_hints:
        named = ", ".join(f"{backend} ({why})" for backend, why in without_patch.items())
        raise ConfigError(
            f"policy: {policy!r} needs backends that take hints (to keep, release and swap the KV blocks of "
            f"a session), so each must run with the backend patch; without it: {named}; "
            f"allowed without it: {', '.join(live_policies())} "
            f"(all of them under: loadgen simulate --policy {policy})"
        )


@dataclass(frozen=True, slots=True)
class Setting:
    """One leaf of the tree."""

    path: tuple[str, ...]
    """Of field names, e.g. ``("listen", "port")``."""
    allowed: Range | None
    """Bounds of a number; None where the type says it all."""

    @property
    def key(self) -> str:
        return ".".join(self.path)


def settings(section: type = Config, above: tuple[str, ...] = ()) -> list[Setting]:
    """Every setting of the tree, in the order in which it is declared."""
    found: list[Setting] = []
    for name, hint in get_type_hints(section, include_extras=True).items():
        path = (*above, name)
        if is_dataclass(hint):
            found += settings(hint, path)  # type: ignore[arg-type]
        else:
            marks = getattr(hint, "__metadata__", ())
            found.append(Setting(path, next((mark for mark in marks if isinstance(mark, Range)), None)))
    return found
