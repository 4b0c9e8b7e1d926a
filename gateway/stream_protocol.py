"""What travels in streams: the events of a command (SSE) and the text frames of a terminal (WebSocket).

Owns names, types and bounds, as ``protocol`` does for bodies; clients decode with these. It must not know how
anything is done. Offsets are bytes of a stream since its beginning.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from gateway.protocol import ErrorDetail, ExecState, ExecStatus, StreamName, TtyRequest


class QueuedEvent(Struct, frozen=True):
    position: int | None
    """Commands that are ahead, 0 for the next one."""


class StartedEvent(Struct, frozen=True):
    host: str
    queue_s: float


class OutputEvent(Struct, frozen=True, omit_defaults=True):
    """``text`` or ``b64``, whichever the bytes allow; a character is never cut in two within ``text``."""

    stream: StreamName
    offset: int
    """Of its first byte."""
    text: str | None = None
    b64: str | None = None


class OutputLostEvent(Struct, frozen=True):
    """What follows ``offset`` cannot be had any more; how the command ended is still told."""

    stream: StreamName
    offset: int
    reason: str


class HeartbeatEvent(Struct, frozen=True):
    state: ExecState


class ExitEvent(Struct, frozen=True):
    """The last event. ``status`` without the output, which the events before brought."""

    status: ExecStatus


StreamEvent = QueuedEvent | StartedEvent | OutputEvent | OutputLostEvent | HeartbeatEvent | ExitEvent

EVENT_NAMES: dict[type[StreamEvent], str] = {
    QueuedEvent: "queued",
    StartedEvent: "started",
    OutputEvent: "output",
    OutputLostEvent: "output_lost",
    HeartbeatEvent: "heartbeat",
    ExitEvent: "exit",
}


class TerminalQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Query parameters of ``/v1/sessions/{sid}/pty``."""

    since: Annotated[int, Meta(ge=0, description="Offset to replay from.")] = 0
    takeover: Annotated[Literal[0, 1], Meta(description="1: take the terminal from whoever holds it.")] = 0
    cols: Annotated[int, Meta(ge=1, le=1000)] = 80
    rows: Annotated[int, Meta(ge=1, le=1000)] = 24
    shell: Annotated[Literal["bash", "sh"], Meta(description="Of a terminal that is not there yet.")] = "bash"


class TerminalControl(Struct, frozen=True, forbid_unknown_fields=True):
    """Text frame from a client. Exactly one of the two."""

    resize: TtyRequest | None = None
    signal: Literal["SIGHUP", "SIGINT", "SIGQUIT", "SIGKILL", "SIGTERM"] | None = None

    def __post_init__(self) -> None:
        if (self.resize is None) == (self.signal is None):
            raise ValueError("Give exactly one of `resize` and `signal`")


class Attached(Struct, frozen=True):
    exec: str
    """The shell; another one than before when that has ended."""
    offset: int
    """Of the next binary frame's first byte."""


class TerminalNews(Struct, frozen=True, omit_defaults=True):
    """Text frame to a client. Exactly one is there."""

    queued: QueuedEvent | None = None
    attached: Attached | None = None
    output_lost: OutputLostEvent | None = None
    exit: ExecStatus | None = None
    error: ErrorDetail | None = None


class CloseCode:
    """Why the server closes a terminal's WebSocket."""

    ENDED = 1000
    """The shell is over; the frame before was ``exit``."""
    GOING = 1001
    """The gateway is shutting down and the shell goes on: connect to the next gateway."""
    TAKEN_OVER = 4001
    HELD = 4009
    """Somebody holds it; ``takeover=1`` takes it."""
    LOST = 4503
    """The host cannot be reached. The shell may be running: connect again."""
