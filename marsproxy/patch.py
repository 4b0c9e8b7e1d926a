"""Whether a backend has the backend patch, and whether to go by it: found out by asking for its capabilities.

Owns the reading of that answer, and for each backend what came of it, kept for whoever needs to know. All
but a working patch of a protocol that we speak is a stock vLLM, which is served as well: headroom from its
``/metrics``, no leases, nothing in its requests that it does not know.
"""

import logging
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import msgspec

from backend_patch.protocol import CAPABILITIES_PATH, PROTOCOL, Capabilities, Headroom

log = logging.getLogger(__name__)

MAX_WHY_CHARS = 200
"""Of what a backend says about itself, in one line of the log."""


class PatchState(StrEnum):
    UNKNOWN = "unknown"
    """Not asked yet, or no answer to go by: asked again with the next reading."""
    STOCK = "stock"
    WORKING = "working"
    PASSTHROUGH = "passthrough"
    """It has stepped aside, and its vLLM goes on as a stock one until it is started anew."""
    TOO_NEW = "too_new"
    """It speaks a protocol that this proxy does not."""


class HeadroomSource(StrEnum):
    PATCH = "patch"
    METRICS = "metrics"
    NONE = "none"
    """The backend does not answer."""


@dataclass(frozen=True, slots=True)
class Finding:
    state: PatchState
    why: str = ""
    capabilities: Capabilities | None = None
    """Of a patch that we understand."""


class _Version(msgspec.Struct):
    protocol: int


def judge(status: int, body: bytes) -> Finding:
    """What an answer to ``GET /v1/mars/capabilities`` means."""
    if status in (401, 403):
        return Finding(PatchState.STOCK, f"status {status}: it wants a key, and backend.api_key is not it")
    if status >= 500 or status in (408, 429):
        return Finding(PatchState.UNKNOWN, f"status {status}")
    if status != 200:
        return Finding(PatchState.STOCK, f"status {status}")
    try:
        # By itself: of a newer protocol nothing else is sure to be where we would look for it.
        spoken = msgspec.json.decode(body, type=_Version).protocol
        if spoken > PROTOCOL:
            return Finding(PatchState.TOO_NEW, f"protocol {spoken}, this proxy speaks {PROTOCOL}")
        capabilities = msgspec.json.decode(body, type=Capabilities)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return Finding(PatchState.STOCK, "not an answer of the patch")
    if capabilities.passthrough is not None:
        return Finding(PatchState.PASSTHROUGH, capabilities.passthrough, capabilities)
    return Finding(PatchState.WORKING, capabilities=capabilities)


def stepped_aside(headroom: Headroom) -> str | None:
    """Why the patch has; None while it works on every rank."""
    return next((rank.passthrough for rank in headroom.ranks if rank.passthrough is not None), None)


class PatchGauges(Protocol):
    """Where the state is shown."""

    def set_state(self, state: PatchState) -> None: ...
    def set_source(self, source: HeadroomSource) -> None: ...


class BackendPatch:
    """What is known of one backend's patch. The backend's watch writes it; everybody else reads.

    Every change is one line in the log; what stays the same is not said again.
    """

    def __init__(self, backend: str, gauges: PatchGauges) -> None:
        self.backend = backend
        self.finding = Finding(PatchState.UNKNOWN)
        self.source = HeadroomSource.NONE
        self._gauges = gauges
        self._said: PatchState | None = None

    @property
    def is_working(self) -> bool:
        return self.finding.state is PatchState.WORKING

    @property
    def capabilities(self) -> Capabilities | None:
        """None unless it works."""
        return self.finding.capabilities if self.is_working else None

    def found(self, finding: Finding) -> None:
        self.finding = finding
        self._gauges.set_state(finding.state)
        if finding.state not in (PatchState.UNKNOWN, self._said):
            self._said = finding.state
            is_expected = finding.state in (PatchState.WORKING, PatchState.STOCK)
            log.log(
                logging.INFO if is_expected else logging.WARNING, "%s %s", self.backend, _said_of(finding)
            )

    def reads_from(self, source: HeadroomSource) -> None:
        before, self.source = self.source, source
        self._gauges.set_source(source)
        if self.is_working and source is not before:
            match source:
                case HeadroomSource.PATCH:
                    log.info("%s: headroom comes from its patch", self.backend)
                case HeadroomSource.METRICS:
                    log.warning("%s: its patch tells no headroom; it is read from /metrics", self.backend)
                case HeadroomSource.NONE:
                    log.warning("%s: does not answer", self.backend)


def _said_of(finding: Finding) -> str:
    why = finding.why[:MAX_WHY_CHARS]
    match finding.state, finding.capabilities:
        case PatchState.WORKING, Capabilities(patch_version=version, vllm_version=vllm):
            return f"has the backend patch {version} on vLLM {vllm}: leases and hints are on"
        case PatchState.PASSTHROUGH, _:
            return (
                f"has a backend patch that has stepped aside ({why}): treated as stock vLLM until it is "
                "started anew; its own log says more"
            )
        case PatchState.TOO_NEW, _:
            return f"has a newer backend patch ({why}): treated as stock vLLM; update the proxy"
        case _:
            return (
                f"has no backend patch ({CAPABILITIES_PATH}: {why}): treated as stock vLLM, without leases; "
                "install the patch into its environment and start it with the scheduler to have them"
            )
