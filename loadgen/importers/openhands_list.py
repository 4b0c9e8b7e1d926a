"""OpenHands before the SDK: ``trajectory.json``, one list of actions and observations.

Actions of the agent carry the model's response with its usage (``tool_call_metadata``); those of one
response id are one answer. An observation names its action (``cause``). A condensation rewrites the history.
"""

from pathlib import Path

from loadgen.errors import WorkloadError
from loadgen.importers.files import digest_of, document
from loadgen.importers.openhands import SHIPPED_TOOLS, SOURCE, WAITS
from loadgen.importers.transcript import Call, Reading, ToolUse, Transcript, Waits
from loadgen.importers.values import Fields, count, fields, items, latest, moment, text

NO_TOOLS = frozenset({"message", "system", "recall", "condensation", "change_agent_state", "null"})
"""Actions that run nothing."""


def is_document(found: object) -> bool:
    events = [fields(event) for event in items(found)[:20]]
    return (
        bool(events)
        and all("source" in e or "timestamp" in e for e in events)
        and any("action" in e or "observation" in e for e in events)
    )


def read(path: Path, reading: Reading) -> list[Transcript]:
    found = document(path)
    if not is_document(found):
        raise WorkloadError("is no list of actions and observations", path=str(path))
    run = Run(Transcript(SOURCE, digest_of(path)), reading)
    for event in items(found):
        run.add(fields(event))
    return [run.transcript]


class Run:
    """The events so far, as calls."""

    def __init__(self, transcript: Transcript, reading: Reading) -> None:
        self.transcript = transcript
        self._reading = reading
        self._next = Call()
        self._answer_id: str | None = None
        self._uses: dict[str, ToolUse] = {}

    def add(self, event: Fields) -> None:
        action = text(event.get("action"))
        if action == "condensation":
            self._next.is_rewritten = bool(self.transcript.calls)
        elif action is not None and event.get("source") == "agent" and action not in ("system", "recall"):
            self._add_answer(event, action)
        elif event.get("observation") is not None:
            self._add_observation(event)
        elif action is not None:
            if action == "message" and event.get("source") == "user":
                self._next.prompted_at = moment(event.get("timestamp"))
            self._add_input(event, fields(event.get("args")).get("content"))

    def _add_answer(self, event: Fields, action: str) -> None:
        called = fields(event.get("tool_call_metadata"))
        response = fields(called.get("model_response"))
        answer_id, at = text(response.get("id")), moment(event.get("timestamp"))
        if answer_id is None or answer_id != self._answer_id:
            self._start_call(answer_id, fields(response.get("usage")))
        call, arguments = self.transcript.calls[-1], fields(event.get("args"))
        call.answered_at = latest(call.answered_at, at)
        call.answer_tokens += self._reading.counter.count_in(list(map(str, arguments.values())))
        if action not in NO_TOOLS:
            name = text(called.get("function_name")) or action
            use = ToolUse(
                self._reading.tool_name(name, SHIPPED_TOOLS),
                started_at=at,
                waits=WAITS.get(name, Waits.NOBODY),
                command=self._reading.command(arguments.get("command")),
            )
            call.tools.append(use)
            self._uses[str(event.get("id"))] = use

    def _start_call(self, answer_id: str | None, usage: Fields) -> None:
        call, self._next, self._answer_id = self._next, Call(), answer_id
        call.prompt_tokens = count(usage.get("prompt_tokens"))
        call.output_tokens = count(usage.get("completion_tokens"))
        self.transcript.calls.append(call)

    def _add_observation(self, event: Fields) -> None:
        use = self._uses.pop(str(event.get("cause")), None)
        if use is not None:
            use.ended_at = moment(event.get("timestamp"))
        self._add_input(event, event.get("content"))

    def _add_input(self, event: Fields, content: object) -> None:
        self._next.asked_at = latest(self._next.asked_at, moment(event.get("timestamp")))
        self._next.added_tokens += self._reading.counter.count_in(content)
