"""The one configuration tree of the proxy: what can be set, in which unit, and why that default.

Owns names, defaults and allowed values, nothing else: it reads neither file nor environment
(``marsproxy.config_sources`` does) and starts nothing. A tree that exists is valid; ``ConfigError``
names the key and what it allows. The docstring under a field is its help text on the command line and
its comment in ``--print-config``.

"Lab" in the sources below is this project's simulation study of admission policies on bootstrapped
coding-agent and interactive traces (stock queueing against the policy, several seeds).
"""

from dataclasses import dataclass, field, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints
from urllib.parse import urlsplit

from cyclopts import Parameter

EMBEDDED = "embedded"
"""Stands for a backend that ``serve`` starts itself: the engine model, no GPU."""


class ConfigError(ValueError):
    """A setting is not usable; the message is for the person who set it."""


@dataclass(frozen=True, slots=True)
class Range:
    """Allowed values of a number, both ends included."""

    low: float
    high: float | None = None

    def __contains__(self, value: float) -> bool:
        return value >= self.low and (self.high is None or value <= self.high)

    def __str__(self) -> str:
        return f"at least {self.low}" if self.high is None else f"{self.low} to {self.high}"


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


def check_ranges(section: object, name: str) -> None:
    """Raise ``ConfigError`` for the first number of ``section`` that its ``Range`` does not contain."""
    for key, hint in get_type_hints(type(section), include_extras=True).items():
        value = getattr(section, key)
        for allowed in getattr(hint, "__metadata__", ()):
            if isinstance(allowed, Range) and value is not None and value not in allowed:
                raise ConfigError(f"{name}.{key}: {value} is not allowed; allowed: {allowed}")


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
    telemetry_timeout_s: Annotated[float, Range(0.01, 60)] = 2.0
    """Seconds that one reading may take; later it counts as missed."""
    telemetry_stale_s: Annotated[float, Range(0.1, 600)] = 5.0
    """Age in seconds from which a reading is no longer believed and the fixed cap applies."""
    api_key: OptionalSecret = None
    """Secret. Replaces the Authorization of every request to a backend. Unset: the client's is passed on."""
    kv_tokens: Annotated[int | None, Range(1)] = None
    """Tokens that fit into a backend's KV cache. Unset: read from vllm:cache_config_info; set it where a
    backend does not publish that."""

    def __post_init__(self) -> None:
        check_ranges(self, "backend")
        if self.telemetry_stale_s <= self.telemetry_interval_s:
            raise ConfigError(
                f"backend.telemetry_stale_s: {self.telemetry_stale_s} is not allowed; "
                f"allowed: more than backend.telemetry_interval_s ({self.telemetry_interval_s})"
            )


@dataclass(frozen=True, slots=True)
class Admission:
    """When a turn may go to the engine."""

    kv_target: Annotated[float, Range(0.05, 2)] = 0.90
    """Share of a backend's KV tokens that counted sessions may be predicted to need (0.90 is one of the two
    best settings on every trace of the lab; at 1.1, without protected blocks, half of the gain is lost)."""
    growth_beta: Annotated[float, Range(0, 1)] = 0.5
    """Share of a session's expected growth that is reserved with its context (lab: 0.5 best or within seed
    noise; 0 admits on the present context and loses four fifths of the gain)."""
    peak_prior_tokens: Annotated[int, Range(1)] = 35_000
    """Context, in tokens, that a session is expected to reach before its family has been seen (lab: median
    peaks are 38k and 55k; reserving too little costs 2 to 5 times, too much 10 to 30 %)."""
    peak_window: Annotated[int, Range(1, 10_000)] = 30
    """Finished sessions of a family whose peaks are averaged (lab: 30 follows drift without being noisy)."""
    idle_gap_s: Annotated[float, Range(0, 3600)] = 30.0
    """Seconds of a tool gap after which a session no longer counts (lab: 30 to 60; counting idle users cost
    a factor of four against stock)."""
    warm_ratio: Annotated[float, Range(0, 1)] = 0.5
    """Share of a context that must still be resident for an uncounted session to pass at once (lab)."""
    valve_ratio: Annotated[float, Range(0.05, 2)] = 0.95
    """Share of the KV tokens in real use at which the youngest counted session is uncounted: insurance
    against bad predictions (lab: 0 to 8 % where they are good, a factor of 2 to 5 where they are bad)."""
    queue_slack: Annotated[float, Range(0, 1000)] = 30.0
    """Weight of a session's expected work against its time of arrival in the order of the queue, without
    unit (lab: 30 keeps most of the mean gain of shortest-first and loses less p99)."""
    look_ahead: Annotated[int, Range(0, 1000)] = 3
    """Turns behind a head that does not fit which may go first (lab: 3 recovers most of what the blocked
    head costs)."""
    max_overtakes: Annotated[int, Range(0, 100_000)] = 32
    """Times that one held turn may be overtaken (unbounded overtaking raised the longest session by 15 %
    in the lab; the bound itself is chosen, not measured)."""
    fallback_concurrency: Annotated[int, Range(1, 100_000)] = 8
    """Sessions per backend at once while its telemetry is unknown or stale (lab: a fixed 8 was never far
    from the best fixed number; 16 cost a factor of 2 to 7)."""
    tools_per_core: Annotated[float, Range(0.1, 1000)] = 2.5
    """Tools running and queued per core of the tool hosts up to which new sessions are admitted (lab: 2 to
    3 best, 1 costs up to 5 %)."""
    max_held_turns: Annotated[int, Range(0, 1_000_000)] = 4096
    """Turns held at once; one more is refused with 429. A held turn costs its body and a connection."""
    max_hold_s: Annotated[float, Range(0.01, 86_400)] = 570.0
    """Seconds that a turn may be held before it is refused with 503: just under the 600 s after which the
    OpenAI and Anthropic clients give up by default, so that they are told why."""
    retry_after_s: Annotated[float, Range(1, 3600)] = 5.0
    """Seconds that a refused client is told to wait (Retry-After); the official clients obey it up to 60."""

    def __post_init__(self) -> None:
        check_ranges(self, "admission")


@dataclass(frozen=True, slots=True)
class Sessions:
    """Bounds of the session table. The API never says that a session is over, so every row expires."""

    max_sessions: Annotated[int, Range(1, 10_000_000)] = 20_000
    """Rows; beyond it the session idle for longest is forgotten first."""
    idle_expiry_s: Annotated[float, Range(1, 604_800)] = 3600.0
    """Seconds without a turn after which a session is forgotten. Longer than a user's pause, and than any
    cached block survives on a busy server."""

    def __post_init__(self) -> None:
        check_ranges(self, "sessions")


@dataclass(frozen=True, slots=True)
class Identity:
    """How requests are joined to sessions."""

    extra_session_headers: tuple[str, ...] = ()
    """Request headers that carry a session id, besides the built-in ones; first match wins."""
    trust_client_ids: Annotated[bool, Parameter(negative="--identity.no-trust-client-ids")] = True
    """Whether ids in URL, headers and body are believed. Within one API key only, either way; switch it off
    where clients of one key send colliding ids, and message prefixes decide alone."""

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
    """Base URL. Unset: tools are not seen, and admission goes by the GPU alone."""
    token: OptionalSecret = None
    """Secret. Bearer token for the gateway. Unset: none is sent."""

    def __post_init__(self) -> None:
        if self.url is not None:
            check_http_url(self.url, "gateway.url")


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that ``marsproxy serve`` can be told."""

    backends: Annotated[tuple[str, ...], Parameter(alias="--backend")] = ()
    """Base URLs of the servers behind the proxy, or the word embedded for one that is started here."""
    policy: Literal["mars"] = "mars"
    """Who decides about turns."""
    store: Literal["memory"] = "memory"
    """Where sessions are kept: memory is this process alone."""
    listen: Listen = field(default_factory=Listen)
    backend: Backend = field(default_factory=Backend)
    admission: Admission = field(default_factory=Admission)
    sessions: Sessions = field(default_factory=Sessions)
    identity: Identity = field(default_factory=Identity)
    hold: Hold = field(default_factory=Hold)
    event_log: EventLog = field(default_factory=EventLog)
    gateway: Gateway = field(default_factory=Gateway)

    def __post_init__(self) -> None:
        for url in self.backends:
            if url != EMBEDDED:
                check_http_url(url, "backends", also=f", or the word {EMBEDDED}")
        if len(set(self.backends)) < len(self.backends):
            raise ConfigError("backends: the same one twice; allowed: each once")


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
