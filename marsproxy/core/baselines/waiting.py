"""Agents that wait for a place: a lane for each backend and one for those that are bound to none.

Each lane is in order of arrival. Knows nothing of places and of time.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from marsproxy.core.baselines.base import FollowedTurn


@dataclass(slots=True)
class WaitingAgent:
    lane: str | None
    """Backend that may have its blocks; None for no matter which."""
    turns: list[FollowedTurn] = field(default_factory=list)


class WaitingAgents:
    def __init__(self, backends: Sequence[str]) -> None:
        self._agents: dict[str, WaitingAgent] = {}
        self._lanes: dict[str | None, OrderedDict[str, None]] = {
            name: OrderedDict() for name in (None, *backends)
        }

    def __contains__(self, session_id: str) -> bool:
        return session_id in self._agents

    def has_before(self, lane: str | None) -> bool:
        """Whether anybody would go before one who is added to that lane now."""
        return bool(self._lanes[lane])

    def add(self, turn: FollowedTurn, lane: str | None) -> None:
        """An agent that waits already stays in its lane and place."""
        session_id = turn.session.id
        if session_id not in self._agents:
            self._agents[session_id] = WaitingAgent(lane)
            self._lanes[lane][session_id] = None
        self._agents[session_id].turns.append(turn)

    def remove(self, turn: FollowedTurn) -> None:
        """The turn does not wait any more; nor does its agent, if that was its last."""
        agent = self._agents[turn.session.id]
        agent.turns.remove(turn)
        if not agent.turns:
            self.pop(turn.session.id)

    def pop(self, session_id: str) -> list[FollowedTurn]:
        """The agent's turns; it waits no more."""
        agent = self._agents.pop(session_id)
        del self._lanes[agent.lane][session_id]
        return agent.turns

    def next_for(self, backend: str) -> str | None:
        """Session id of the agent to go there next: one that was there before, else who came first."""
        for lane in (backend, None):
            if self._lanes[lane]:
                return next(iter(self._lanes[lane]))
        return None

    def unbind(self, backend: str) -> None:
        """The backend is gone: who waits for it joins the others at their end."""
        for session_id in self._lanes[backend]:
            self._agents[session_id].lane = None
            self._lanes[None][session_id] = None
        self._lanes[backend].clear()
