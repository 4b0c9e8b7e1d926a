"""The one description of a workload, read by the live driver and by the simulator.

A workload is a sequence of sessions; a session is a list of turns; a turn adds tokens to the prompt,
takes tokens out of the model and may be followed by a tool call or by a pause of the user. The file
form is JSON Lines, one session a line, with these field names; ``docs/workload-format.md`` is its
reference.
"""

import msgspec


class ToolCall(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What runs between a turn and its continuation."""

    name: str
    duration_s: float | None
    """Wall-clock seconds of the command on an idle host; None where the trace does not say. An opened
    workload has a value everywhere (``loadgen.unknown_times``)."""
    cores: float = 1.0
    """CPU seconds used per second of duration: 0 sleeps, 1 burns one core."""
    memory_mb: float = 0.0
    command: str | None = None
    """Run this instead of a synthetic command of that duration and weight."""

    @property
    def traced_s(self) -> float:
        """Of a call in an opened workload."""
        assert self.duration_s is not None, "unknown times are replaced where a workload is opened"
        return self.duration_s


class Turn(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    new_tokens: int
    """Prompt tokens that the previous turn of the session (with its answer) did not have."""
    output_tokens: int
    tool: ToolCall | None = None
    think_s: float | None = None
    """A user's pause after the answer, before the next turn."""


class Session(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    id: str
    turns: list[Turn]
    arrival_s: float | None = None
    """Seconds after the start; None leaves it to the arrival process."""
    tenant: str | None = None
    system_tokens: int = 0
    """Length of the system prompt, in the first turn, on top of its ``new_tokens``."""
    system_id: str | None = None
    """Sessions with the same id share the same system prompt, so their KV blocks too."""
    source: str | None = None
    """What wrote the transcript that this session was imported from."""
    parent: str | None = None
    """The session that started this one, a sub-agent's. Told, not acted on."""
    tokens_by: str | None = None
    """How its tokens were counted: ``usage`` (recorded), ``tokenizer``, ``characters``, or ``mixed``."""
