"""What every policy is to those who drive it: the live proxy and the simulator.

MARS (``marsproxy.core.policy``) and the policies that it is compared with (``marsproxy.core.baselines``)
are driven through this one door, so a comparison differs in nothing else.
"""

from collections.abc import Sized
from typing import Protocol

from marsproxy.core.commands import Command
from marsproxy.core.events import Event
from marsproxy.core.headroom import BackendState, ToolHosts
from marsproxy.core.sessions import SessionTable
from marsproxy.core.tool_joins import JoinedBy


class SchedulingPolicy(Protocol):
    """Takes past facts, gives orders. ``handle`` is the only thing that changes its state."""

    def handle(self, event: Event, now: float) -> list[Command]:
        """Orders that follow from ``event``, in the order in which to enact them.

        Every turn that arrived is answered by exactly one ``ForwardTurn`` or ``RejectTurn``, unless its
        ``TurnEnded`` comes first. ``now`` never goes back.
        """

    @property
    def sessions(self) -> SessionTable: ...

    @property
    def held(self) -> Sized:
        """The turns that wait."""

    @property
    def open_turns(self) -> int: ...

    @property
    def backends(self) -> dict[str, BackendState]: ...

    @property
    def tool_hosts(self) -> ToolHosts: ...

    def tool_joined_by(self, exec_id: str) -> JoinedBy | None:
        """What joined a run that waits or is under way to a session; None if nothing did."""

    def reserved_tokens(self, now: float) -> dict[str, float]:
        """Tokens promised to sessions, for each backend whose pool is known; {} where none are promised."""

    def budget_tokens(self, now: float) -> dict[str, float]:
        """Tokens that may be promised, for each backend whose pool is known; {} where nothing is."""
