"""Agents that name their sessions, each the way its framework does.

As seen in captures of OpenHands SDK 1.58, Codex 0.169 and opencode 1.18, and as Claude Code documents it.
Owns ids, side calls and sub-agents of each; it must not know what the proxy makes of them.
"""

from dataclasses import dataclass
from uuid import NAMESPACE_URL, uuid5

import httpx

from tests.integration import fleet_wire
from tests.integration.fleet_clients import AgentClient, Ids
from tests.marsproxy.core.agent_fleet import Agent, Shape


@dataclass(frozen=True, slots=True)
class Run:
    """One agent's run under a framework; ``number`` makes it one of many."""

    framework: str
    number: int

    def shape(self, part: str = "", **more: object) -> Shape:
        name = f"{self.framework}-{self.number}{part}"
        # All of one framework start with the same words: only the ids tell them apart.
        fields = {"name": name, "turns": 6 + self.number % 4, "task": f"a task for {self.framework}"}
        return Shape(**(fields | more))

    def id(self, part: str = "") -> str:
        return str(uuid5(NAMESPACE_URL, f"{self.framework}-{self.number}{part}"))

    def condensing(self) -> dict[str, object]:
        return {"condense_at": 4 + self.number % 2, "keep_first": 2, "keep_last": 2 + self.number % 3}


def openhands(run: Run, http: httpx.AsyncClient) -> AgentClient:
    """The condenser's call has the conversation's id, a system prompt of its own and no tools. A sub-agent
    has an id of its own and its parent's cache key."""
    key = {"prompt_cache_key": run.id(), "reasoning_effort": "high"}
    referer = {"user-agent": "OpenAI/Python 2.54.0", "x-title": "OpenHands"}
    kept = run.condensing()
    sides = frozenset({kept["condense_at"]})
    shapes = [run.shape(side_calls_at=sides, **kept), run.shape("/sub", turns=4, task="a part")]
    main, sub = (
        AgentClient(
            http,
            Agent(shape),
            fleet_wire.OPENHANDS,
            Ids(referer | {"x-litellm-session-id": run.id(part)}, key),
            says_retry=True,
        )
        for shape, part in zip(shapes, ("", "/sub"), strict=True)
    )
    main.sub_agents.append(sub)
    return main


def codex(run: Run, http: httpx.AsyncClient) -> AgentClient:
    """Its compaction keeps the same thread. A sub-agent is a thread of its own in the same session."""
    main = _codex_thread(run.shape(**run.condensing()), run.id(), run.id(), http)
    main.sub_agents.append(_codex_thread(run.shape("/sub", turns=4), run.id(), run.id("/sub"), http))
    return main


def _codex_thread(shape: Shape, root: str, thread: str, http: httpx.AsyncClient) -> AgentClient:
    headers = {"user-agent": "codex_exec/0.169.0 (Debian 12.0.0; x86_64)", "session-id": root}
    metadata = {"session_id": root, "thread_id": thread, "x-codex-window-id": f"{thread}:0"}
    ids = Ids(headers | {"thread-id": thread}, {"prompt_cache_key": thread, "client_metadata": metadata})
    return AgentClient(http, Agent(shape), fleet_wire.CODEX, ids, is_streaming=True, leaves_early=True)


def opencode(run: Run, http: httpx.AsyncClient) -> AgentClient:
    """Asks for a title beside its first turn. A sub-agent names its parent."""
    main = _opencode_session(run.shape(**run.condensing()), _opencode_ids(run.id()), http)
    main.has_title = True
    parent = {"x-parent-session-id": run.id()}
    ids = Ids(_opencode_ids(run.id("/sub")).headers | parent)
    main.sub_agents.append(_opencode_session(run.shape("/sub", turns=4), ids, http))
    return main


def _opencode_session(shape: Shape, ids: Ids, http: httpx.AsyncClient) -> AgentClient:
    return AgentClient(http, Agent(shape), fleet_wire.LANGCHAIN, ids, is_streaming=True)


def _opencode_ids(session: str) -> Ids:
    agent = "opencode/1.18.33 ai-sdk/provider-utils/4.0.23 runtime/bun/1.3.14"
    return Ids({"user-agent": agent, "x-session-id": session, "x-session-affinity": session})


def claude_code(run: Run, http: httpx.AsyncClient) -> AgentClient:
    """Its compaction keeps little more than the system prompt. One sub-agent names itself, two at the same
    time have nothing but the session's id."""
    main = _claude_line(run.shape(**run.condensing()), run, {}, http)
    named = run.shape("/named", turns=3, system="You search.")
    main.sub_agents.append(_claude_line(named, run, {"x-claude-code-agent-id": run.id("/named")}, http))
    for part in ("/one", "/two"):
        shape = run.shape(part, turns=3, system="You look.", task=f"look at {part}")
        main.sub_agents.append(_claude_line(shape, run, {}, http))
    return main


def _claude_line(shape: Shape, run: Run, more: dict[str, str], http: httpx.AsyncClient) -> AgentClient:
    headers = {"user-agent": "claude-cli/2.1.0 (external, cli)", "x-claude-code-session-id": run.id()}
    ids = Ids(headers | more, {"metadata": {"user_id": f"user_1_account__session_{run.id()}"}})
    return AgentClient(http, Agent(shape), fleet_wire.CLAUDE, ids, is_streaming=True, says_retry=True)


FRAMEWORKS = {"openhands": openhands, "codex": codex, "opencode": opencode, "claude_code": claude_code}


def agent_of(framework: str, number: int, http: httpx.AsyncClient) -> AgentClient:
    return FRAMEWORKS[framework](Run(framework, number), http)
