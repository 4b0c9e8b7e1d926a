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

EMBEDDED = "embedded"
"""Stands for a backend that ``serve`` starts itself: the engine model, no GPU."""


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
    kv_tokens: Annotated[int | None, Range(1)] = None
    """Tokens that fit into a backend's KV cache. Unset: read from vllm:cache_config_info; set it where a
    backend does not publish that."""

    def __post_init__(self) -> None:
        check_ranges(self, "backend")


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
class Config:
    """Everything that ``marsproxy serve`` can be told."""

    backends: Annotated[tuple[str, ...], Parameter(alias="--backend")] = ()
    """Base URLs of the servers behind the proxy, or the word embedded for one that is started here."""
    policy: str = "mars"
    """Who decides about turns, by its name in the table of policies (docs/configuration.md)."""
    store: Literal["memory"] = "memory"
    """Where sessions are kept: memory is this process alone."""
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

    def __post_init__(self) -> None:
        for url in self.backends:
            if url != EMBEDDED:
                check_http_url(url, "backends", also=f", or the word {EMBEDDED}")
        check_live(self.policy, policy_kind(self.policy))
        if len(set(self.backends)) < len(self.backends):
            raise ConfigError("backends: the same one twice; allowed: each once")
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
