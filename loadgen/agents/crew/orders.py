"""What the load generator and the framework's process say to each other: JSON, one line each.

In: orders, one agent each; the end of the input ends the crew once its agents are done. Out: one line when
the framework is loaded, and one when an agent is over. Neither carries what a model or a tool said.
"""

import json
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Order:
    session: str
    task: str
    """The user's first message."""
    workspace: str
    """Directory that the agent works in."""
    base_url: str
    """Of the OpenAI API, with ``/v1``."""
    api_key: str
    model: str
    max_steps: int
    """Model calls before the framework gives up."""
    timeout_s: float
    """Of one model call, and of one command."""
    stream: bool = False
    shell: str | None = None
    """Program that the framework runs commands with; None is its own choice."""

    def line(self) -> str:
        return json.dumps(asdict(self)) + "\n"


@dataclass(frozen=True)
class Loaded:
    framework: str
    version: str

    def line(self) -> str:
        return json.dumps({"event": "loaded", **asdict(self)}) + "\n"


@dataclass(frozen=True)
class Ended:
    session: str
    error: str | None
    """None: the framework says that the task is done."""

    def line(self) -> str:
        return json.dumps({"event": "ended", **asdict(self)}) + "\n"


def read_order(line: str) -> Order:
    return Order(**json.loads(line))


def read_report(line: str) -> Loaded | Ended | None:
    """None for a line that is no report, as a framework may print."""
    try:
        fields: dict[str, Any] = dict(json.loads(line))
    except (ValueError, TypeError):
        return None
    try:
        match fields.pop("event", None):
            case "loaded":
                return Loaded(**fields)
            case "ended":
                return Ended(**fields)
    except TypeError:
        return None
    return None
