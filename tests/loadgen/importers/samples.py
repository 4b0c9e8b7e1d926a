"""Transcripts as the frameworks write them, made here: small, and with every text a word that betrays itself.

Shapes were taken from files that Codex 0.169, OpenHands SDK 1.58 and mini-swe-agent 2.4 wrote, and from what
is published of the others.
"""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from loadgen.importers.counting import CharacterCounter
from loadgen.importers.sessions import to_sessions
from loadgen.importers.transcript import Reading, Transcript
from loadgen.workload import Session

START = datetime(2026, 5, 4, 9, 0, tzinfo=UTC)
SECRET = "xyzzy-plugh"
"""In every text of every sample."""


def stamp(at_s: float) -> str:
    return (START + timedelta(seconds=at_s)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def words(tokens: int) -> str:
    """A text of so many tokens, four characters each."""
    return (f"{SECRET} " * tokens)[: 4 * tokens]


def lines(path: Path, entries: list[dict[str, Any]], *, end: str = "\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(json.dumps(entry) for entry in entries) + end, "utf-8")
    return path


def document(path: Path, value: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2), "utf-8")
    return path


def new_reading(*, keep_text: bool = False) -> Reading:
    return Reading(CharacterCounter(), keep_text)


def sessions_of(transcripts: list[Transcript], reading: Reading) -> list[Session]:
    return [s for t in transcripts for s in to_sessions(t, reading.counter.name, reading.notes)]


class Claude:
    """Lines of Claude Code."""

    def __init__(self, session: str = f"5e55-{SECRET}") -> None:
        self.entries: list[dict[str, Any]] = []
        self._session = session
        self._count = 0

    def entry(self, kind: str, at_s: float, **more: Any) -> dict[str, Any]:
        self._count += 1
        own = {
            "parentUuid": None,
            "isSidechain": False,
            "cwd": f"/home/{SECRET}",
            "sessionId": self._session,
            "version": "2.1.17",
            "gitBranch": SECRET,
            "type": kind,
            "uuid": f"uuid-{self._session}-{self._count}",
            "timestamp": stamp(at_s),
        }
        self.entries.append(own | more)
        return self.entries[-1]

    def user(self, at_s: float, tokens: int = 10, **more: Any) -> dict[str, Any]:
        return self.entry("user", at_s, message={"role": "user", "content": words(tokens)}, **more)

    def result(self, at_s: float, use_id: str, tokens: int = 10, **more: Any) -> dict[str, Any]:
        block = {
            "type": "tool_result",
            "tool_use_id": use_id,
            "content": [{"type": "text", "text": words(tokens)}],
        }
        return self.entry("user", at_s, message={"role": "user", "content": [block]}, **more)

    def says(
        self, at_s: float, answer: str, *, usage: tuple[int, int, int, int] | None = None, **more: Any
    ) -> dict[str, Any]:
        return self._answer(at_s, answer, {"type": "text", "text": words(8)}, usage, more)

    def calls(
        self,
        at_s: float,
        answer: str,
        use_id: str,
        *,
        tool: str = "Bash",
        usage: tuple[int, int, int, int] | None = None,
        **more: Any,
    ) -> dict[str, Any]:
        block = {"type": "tool_use", "id": use_id, "name": tool, "input": {"command": f"cat {SECRET}"}}
        return self._answer(at_s, answer, block, usage, more)

    def _answer(
        self,
        at_s: float,
        answer: str,
        block: dict[str, Any],
        usage: tuple[int, int, int, int] | None,
        more: dict[str, Any],
    ) -> dict[str, Any]:
        message: dict[str, Any] = {"id": answer, "role": "assistant", "model": "m", "content": [block]}
        names = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens")
        if usage is not None:
            message |= {"usage": dict(zip(names, usage, strict=True)), "stop_reason": "end_turn"}
        return self.entry("assistant", at_s, message=message, requestId=f"req-{answer}", **more)


def claude_session(session: str = f"5e55-{SECRET}") -> Claude:
    """A prompt, two tools side by side, an answer, a pause of a minute, an answer."""
    claude = Claude(session)
    claude.entries.append({"type": "summary", "summary": SECRET, "leafUuid": "x"})
    claude.user(0, 20)
    claude.says(2, "m1", usage=(10, 900, 0, 1))
    claude.calls(3, "m1", "a", usage=(10, 900, 0, 30))
    claude.calls(4, "m1", "b", tool="mcp__private__" + SECRET, usage=(10, 900, 0, 60))
    claude.result(5, "a")
    claude.result(7.5, "b")
    claude.says(9, "m2", usage=(5, 100, 900, 40))
    claude.user(69)
    claude.says(71, "m3", usage=(5, 60, 1000, 20))
    return claude


def codex_line(at_s: float, kind: str, **payload: Any) -> dict[str, Any]:
    return {"timestamp": stamp(at_s), "type": kind, "payload": payload}


def codex_item(at_s: float, kind: str, **payload: Any) -> dict[str, Any]:
    return codex_line(at_s, "response_item", type=kind, **payload)


def codex_usage(at_s: float, prompt: int, output: int) -> dict[str, Any]:
    usage = {"input_tokens": prompt, "cached_input_tokens": 0, "output_tokens": output}
    return codex_line(at_s, "token_usage_record", response_id="r", usage=usage)


def codex_count(at_s: float, prompt: int, output: int, total: int) -> dict[str, Any]:
    info = {
        "total_token_usage": {"total_tokens": total},
        "last_token_usage": {"input_tokens": prompt, "output_tokens": output},
    }
    return codex_line(at_s, "event_msg", type="token_count", info=info, rate_limits=None)


def codex_message(at_s: float, role: str, tokens: int = 10) -> dict[str, Any]:
    return codex_item(at_s, "message", role=role, content=[{"type": "input_text", "text": words(tokens)}])


def codex_call(at_s: float, call_id: str, name: str = "exec_command") -> dict[str, Any]:
    return codex_item(
        at_s, "function_call", name=name, call_id=call_id, arguments=json.dumps({"cmd": f"cat {SECRET}"})
    )


def codex_output(at_s: float, call_id: str) -> dict[str, Any]:
    return codex_item(at_s, "function_call_output", call_id=call_id, output=words(10))


def codex_rollout() -> list[dict[str, Any]]:
    """As 0.169 writes it: usage before the output, the command's own times after that."""
    ran = {"item": {"type": "CommandExecution", "id": "c1"}}
    began_ms = round(START.timestamp() * 1000)
    return [
        codex_line(0, "session_meta", id=f"id-{SECRET}", cwd=f"/home/{SECRET}", source="exec"),
        codex_message(0, "developer"),
        codex_message(1, "user", 20),
        codex_call(3, "c1"),
        codex_usage(3.5, 1000, 40),
        codex_line(
            5,
            "event_msg",
            type="item_completed",
            started_at_ms=began_ms + 4000,
            completed_at_ms=began_ms + 5500,
            **ran,
        ),
        codex_output(6, "c1"),
        codex_count(6, 1000, 40, 1040),
        codex_item(8, "message", role="assistant", content=[{"type": "output_text", "text": words(5)}]),
        codex_usage(8, 1100, 15),
        codex_line(38, "event_msg", type="user_message", message=SECRET),
        codex_message(38, "user"),
        codex_item(40, "message", role="assistant", content=[{"type": "output_text", "text": words(5)}]),
        codex_usage(40, 1150, 10),
    ]


def mini_run() -> dict[str, Any]:
    """Usage and times; one answer that could not be parsed."""

    def answer(at_s: float, prompt: int, output: int) -> dict[str, Any]:
        usage = {"prompt_tokens": prompt, "completion_tokens": output}
        extra = {
            "actions": [{"command": f"cat {SECRET}", "tool_call_id": "c"}],
            "response": {"usage": usage},
            "timestamp": START.timestamp() + at_s,
        }
        return {"role": "assistant", "content": words(10), "extra": extra}

    def observed(at_s: float) -> dict[str, Any]:
        extra = {"raw_output": SECRET, "returncode": 0, "timestamp": START.timestamp() + at_s}
        return {"role": "tool", "content": words(20), "extra": extra}

    refused = {
        "role": "user",
        "content": words(5),
        "extra": {"interrupt_type": "FormatError", "response": {}},
    }
    messages = [
        {"role": "system", "content": words(100)},
        {"role": "user", "content": words(100)},
        answer(2, 300, 40),
        observed(4.5),
        refused,
        answer(6, 380, 10),
        observed(7),
        {"role": "exit", "content": SECRET},
    ]
    return {"info": {"submission": SECRET}, "messages": messages, "trajectory_format": "mini-swe-agent-1.1"}


def swe_step(action: str, observation: str, execution_s: float | None, **more: Any) -> dict[str, Any]:
    step = {"action": action, "observation": observation, "response": words(10), "thought": SECRET}
    return step | ({} if execution_s is None else {"execution_time": execution_s}) | more


def swe_run() -> dict[str, Any]:
    """Three steps that count, one that was asked for again."""
    query = [{"role": "system", "content": words(100)}, {"role": "user", "content": words(50)}]
    return {
        "environment": SECRET,
        "trajectory": [
            swe_step(f"cat {SECRET}", words(30), 1.5, query=query),
            swe_step("", "", 0.0),
            swe_step(f"edit {SECRET}", words(20), 0.25),
            swe_step("submit", "", 0.0),
        ],
        "history": [{"role": "system", "content": words(100)}],
        "info": {"exit_status": "submitted", "submission": SECRET},
    }


class OpenHands:
    """Events of one conversation; written as its directory."""

    def __init__(self, conversation: str = "65f4772c-87e0-4ded-b8d6-140361be740d") -> None:
        self.id = conversation
        self.events: list[dict[str, Any]] = []
        self.usages: list[dict[str, Any]] = []

    def event(self, kind: str, source: str, at_s: float, **more: Any) -> None:
        # Local time without a zone, as datetime.now().isoformat() gives.
        at = (START + timedelta(seconds=at_s)).replace(tzinfo=None).isoformat()
        own = {"kind": kind, "source": source, "timestamp": at, "id": f"event-{len(self.events)}"}
        self.events.append(own | more)

    def system(self) -> None:
        self.event("SystemPromptEvent", "agent", 0, system_prompt={"text": words(100)}, tools=[])

    def user(self, at_s: float) -> None:
        message = {"role": "user", "content": [{"type": "text", "text": words(10)}]}
        self.event("MessageEvent", "user", at_s, llm_message=message, extended_content=[])

    def says(self, at_s: float, answer: str) -> None:
        message = {"role": "assistant", "content": [{"type": "text", "text": words(10)}]}
        self.event("MessageEvent", "agent", at_s, llm_message=message, llm_response_id=answer)

    def acts(self, at_s: float, answer: str, call_id: str, tool: str = "terminal") -> None:
        self.event(
            "ActionEvent",
            "agent",
            at_s,
            tool_name=tool,
            tool_call_id=call_id,
            llm_response_id=answer,
            thought=[{"type": "text", "text": words(5)}],
            action={"command": f"cat {SECRET}"},
            tool_call={"name": tool, "arguments": json.dumps({"command": SECRET})},
        )

    def observes(self, at_s: float, call_id: str, kind: str = "ObservationEvent") -> None:
        observation = {"content": [{"type": "text", "text": words(20)}]}
        self.event(
            kind, "environment", at_s, tool_call_id=call_id, tool_name="terminal", observation=observation
        )

    def used(self, answer: str, prompt: int, output: int) -> None:
        self.usages.append({"response_id": answer, "prompt_tokens": prompt, "completion_tokens": output})

    def write(self, directory: Path) -> Path:
        state = {
            "id": self.id,
            "agent": {"kind": "Agent"},
            "workspace": {"working_dir": SECRET},
            "stats": {"usage_to_metrics": {"agent": {"token_usages": self.usages}}},
        }
        document(directory / "base_state.json", state)
        for i, event in enumerate(self.events):
            document(directory / "events" / f"event-{i:05d}-{event['id']}.json", event)
        return directory


def openhands_conversation() -> OpenHands:
    conversation = OpenHands()
    conversation.system()
    conversation.user(1)
    conversation.acts(3, "r1", "c1")
    conversation.acts(3.1, "r1", "c2", tool=f"private_{SECRET}")
    conversation.observes(4, "c1")
    conversation.observes(6.1, "c2")
    conversation.says(8, "r2")
    conversation.user(20)
    conversation.says(22, "r3")
    for answer, prompt in (("r1", 1000), ("r2", 1100), ("r3", 1200)):
        conversation.used(answer, prompt, 50)
    return conversation


def openhands_list() -> list[dict[str, Any]]:
    """``trajectory.json`` of OpenHands 0.x."""

    def event(number: int, at_s: float, source: str, **more: Any) -> dict[str, Any]:
        at = (START + timedelta(seconds=at_s)).replace(tzinfo=None).isoformat()
        return {"id": number, "timestamp": at, "source": source, "message": SECRET} | more

    def called(answer: str, prompt: int) -> dict[str, Any]:
        usage = {"prompt_tokens": prompt, "completion_tokens": 30}
        return {"function_name": "execute_bash", "model_response": {"id": answer, "usage": usage}}

    run = {"command": f"cat {SECRET}", "thought": words(5)}
    return [
        event(0, 0, "agent", action="system", args={"content": words(100)}),
        event(1, 1, "user", action="message", args={"content": words(20)}),
        event(2, 3, "agent", action="run", args=run, tool_call_metadata=called("r1", 500)),
        event(3, 5.5, "agent", observation="run", content=words(10), cause=2, extras={}),
        event(4, 7, "agent", action="run", args=run, tool_call_metadata=called("r2", 600)),
        event(5, 8, "agent", observation="run", content=words(10), cause=4, extras={}),
        event(6, 9, "agent", action="message", args={"content": words(10)}),
    ]


def write_all(folder: Path) -> None:
    """One of every format, as directories of users have them."""
    lines(folder / f"claude/projects/-home-{SECRET}/5e55-{SECRET}.jsonl", claude_session().entries)
    lines(folder / f"codex/sessions/2026/05/rollout-2026-{SECRET}.jsonl", codex_rollout())
    document(folder / f"mini/{SECRET}/{SECRET}.traj.json", mini_run())
    document(folder / f"swe/{SECRET}/{SECRET}.traj", swe_run())
    openhands_conversation().write(folder / "openhands/65f4772c87e04dedb8d6140361be740d")
    document(folder / f"old/{SECRET}/trajectory.json", openhands_list())
    document(folder / "settings.json", {"theme": SECRET})
