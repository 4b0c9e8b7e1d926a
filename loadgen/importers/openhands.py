"""OpenHands: a conversation's directory, with ``base_state.json`` and ``events/event-00000-<id>.json``.

Actions of one ``llm_response_id`` are one answer; its usage is among the ``token_usages`` of the state. A
``Condensation`` rewrites the history. Sub-agents are conversations below their parent's ``subagents``
directory. Observations carry the time at which they were there.
"""

from pathlib import Path

from loadgen.errors import WorkloadError
from loadgen.importers.files import document
from loadgen.importers.transcript import Call, Reading, ToolUse, Transcript, Waits
from loadgen.importers.values import Fields, count, fields, items, latest, moment, text

SOURCE = "openhands"
STATE_FILE, EVENTS_DIR, CHILDREN_DIR = "base_state.json", "events", "subagents"
SHIPPED_TOOLS = frozenset(
    {
        "apply_patch", "browser_click", "browser_close_tab", "browser_get_content",
        "browser_get_state", "browser_go_back", "browser_list_tabs", "browser_navigate",
        "browser_scroll", "browser_switch_tab", "browser_type", "delegate", "execute_bash",
        "execute_ipython_cell", "file_editor", "finish", "glob", "grep", "invoke_skill",
        "planning_file_editor", "str_replace_editor", "task", "task_tracker", "terminal", "think",
        "tom_consult", "web_read",
    }
)  # fmt: skip
WAITS = dict.fromkeys(("delegate", "task", "tom_consult"), Waits.AGENT)
OBSERVATIONS = frozenset({"ObservationEvent", "AgentErrorEvent", "UserRejectObservation"})


def is_conversation(directory: Path) -> bool:
    return (directory / STATE_FILE).is_file() or any((directory / EVENTS_DIR).glob("event-*.json"))


def read(directory: Path, reading: Reading) -> list[Transcript]:
    state = state_of(directory, reading)
    conversation = Conversation(new_transcript(directory, state), usages_in(state), reading)
    for path in sorted((directory / EVENTS_DIR).glob("event-*.json")):
        try:
            conversation.add(fields(document(path)))
        except WorkloadError as error:
            reading.notes.broken.append(error)
    return [conversation.transcript]


def state_of(directory: Path, reading: Reading) -> Fields:
    """Without it there is no usage, but the events are still worth reading."""
    path = directory / STATE_FILE
    if not path.is_file():
        return {}
    try:
        return fields(document(path))
    except WorkloadError as error:
        reading.notes.broken.append(error)
        return {}


def new_transcript(directory: Path, state: Fields) -> Transcript:
    parent = directory.parent.parent if directory.parent.name == CHILDREN_DIR else None
    return Transcript(
        SOURCE,
        key_of(directory, state),
        parent_key=None if parent is None else key_of(parent, {}),
    )


def key_of(directory: Path, state: Fields) -> str:
    """A conversation's directory has its id for a name, without dashes."""
    return (text(state.get("id")) or directory.name).replace("-", "")


def usages_in(state: Fields) -> dict[str, Fields]:
    metrics = fields(fields(state.get("stats")).get("usage_to_metrics"))
    usages = [fields(u) for each in metrics.values() for u in items(fields(each).get("token_usages"))]
    return {key: usage for usage in usages if (key := text(usage.get("response_id"))) is not None}


class Conversation:
    """The events so far, as calls."""

    def __init__(self, transcript: Transcript, usages: dict[str, Fields], reading: Reading) -> None:
        self.transcript = transcript
        self._usages = usages
        self._reading = reading
        self._next = Call()
        self._answer_id: str | None = None
        self._uses: dict[str, ToolUse] = {}

    def add(self, event: Fields) -> None:
        kind = text(event.get("kind"))
        is_agents = event.get("source") == "agent"
        if kind == "ActionEvent" or (kind == "MessageEvent" and is_agents):
            self._add_answer(event)
        elif kind in OBSERVATIONS:
            self._add_observation(event)
        elif kind == "Condensation":
            self._next.is_rewritten = bool(self.transcript.calls)
            self._add_input(event, "summary")
        elif kind == "ConversationErrorEvent":
            self._reading.count("failed calls")
        elif kind == "MessageEvent":
            self._next.prompted_at = moment(event.get("timestamp"))
            self._add_input(event, "llm_message", "extended_content")
        elif kind == "SystemPromptEvent":
            self._add_input(event, "system_prompt", "tools", "dynamic_context")

    def _add_answer(self, event: Fields) -> None:
        answer_id = text(event.get("llm_response_id"))
        if answer_id is None or answer_id != self._answer_id:
            self._start_call(answer_id)
        call, at = self.transcript.calls[-1], moment(event.get("timestamp"))
        call.answered_at = latest(call.answered_at, at)
        call.answer_tokens += self._reading.count_all(
            event.get(name) for name in ("thought", "reasoning_content", "tool_call", "llm_message")
        )
        if event.get("kind") == "ActionEvent":
            call.tools.append(self._tool_use(event, at))

    def _start_call(self, answer_id: str | None) -> None:
        call, self._next, self._answer_id = self._next, Call(), answer_id
        usage = self._usages.get(answer_id or "", {})
        call.prompt_tokens = count(usage.get("prompt_tokens"))
        call.output_tokens = count(usage.get("completion_tokens"))
        self.transcript.calls.append(call)

    def _tool_use(self, event: Fields, at: float | None) -> ToolUse:
        name = text(event.get("tool_name")) or ""
        use = ToolUse(
            self._reading.tool_name(name, SHIPPED_TOOLS),
            started_at=at,
            waits=WAITS.get(name, Waits.NOBODY),
            command=self._reading.command(fields(event.get("action")).get("command")),
        )
        if (call_id := text(event.get("tool_call_id"))) is not None:
            self._uses[call_id] = use
        return use

    def _add_observation(self, event: Fields) -> None:
        use = self._uses.pop(text(event.get("tool_call_id")) or "", None)
        if use is not None:
            use.ended_at = moment(event.get("timestamp"))
        self._add_input(event, "observation", "error", "rejection_reason", "extended_content")

    def _add_input(self, event: Fields, *names: str) -> None:
        self._next.asked_at = latest(self._next.asked_at, moment(event.get("timestamp")))
        self._next.added_tokens += self._reading.count_all(event.get(name) for name in names)
