"""That a command keeps to its limits and leaves nothing behind, by whatever this host has for it.

Best first: control groups (nothing leaves them), the process group (what does not leave it), the marker in
the environment (what does not wipe it). Owns which of these hold here, and says so; must not know why a
command ends.
"""

from __future__ import annotations

import hashlib
import signal
from functools import partial
from pathlib import Path
from typing import Any

from gateway.host_agent.cgroup_trees import find_trees
from gateway.host_agent.cgroups import Cgroups, Group, Limits
from gateway.host_agent.process import not_started
from gateway.host_agent.sweep import Sweeper, send


class Containment:
    def __init__(self, cgroups: Cgroups, owner: str) -> None:
        """``owner``: the name of the agent's directory, for the mark of its processes."""
        self.owner = owner
        self._cgroups = cgroups
        self._sweeper = Sweeper(owner)
        self._unremoved: dict[str, Group] = {}
        """Something in them hangs in the kernel."""

    def capabilities(self) -> dict[str, Any]:
        controllers = self._cgroups.controllers
        return {
            "containment": self._name(),
            "can_limit_memory": "memory" in controllers,
            "can_limit_pids": "pids" in controllers,
            "can_limit_cpu": "cpu" in controllers,
        }

    def _name(self) -> str:
        """As gateways know them. A v2 tree counts, for its ``cgroup.kill``, whatever is beside it."""
        if not self._cgroups.is_any:
            return "process_group"
        return "cgroup_v1" if self._cgroups.version == "v1" else "cgroup_v2"

    def open(self, exec_id: str, limits: Limits) -> Group | None:
        """None: there are no control groups here. Raises Refused for limits that nothing here can hold."""
        self._refuse_what_cannot_hold(limits)
        if not self._cgroups.is_any:
            return None
        try:
            return self._cgroups.open(exec_id, limits)
        except OSError as error:
            raise not_started(f"no control group with its limits: {error.strerror}") from error

    async def kill(self, exec_id: str, group: Group | None) -> None:
        """All that is left of it, the leader too."""
        if group is None or not await group.killed():
            await self._sweeper.kill([exec_id])

    async def has_any(self, exec_id: str, group: Group | None) -> bool:
        if group is not None:
            return bool(group.pids())
        return await self._sweeper.has_any(exec_id)

    async def signal_tree(self, exec_id: str, group: Group | None, number: signal.Signals) -> bool:
        """To each process of it, wherever it went."""
        if group is None:
            return await self._sweeper.signal(exec_id, number) > 0
        return sum(send(pid, number, partial(group.has, pid)) for pid in group.pids()) > 0

    def remove(self, exec_id: str, group: Group | None) -> None:
        """At once as a rule; what cannot go yet is tried again with the next ones."""
        if group is not None:
            self._unremoved[exec_id] = group
        self._remove_what_can_go()

    def _remove_what_can_go(self) -> None:
        for name in [name for name, each in self._unremoved.items() if each.remove()]:
            del self._unremoved[name]

    async def clear_up(self, exec_ids: set[str]) -> None:
        """Whatever is left of commands whose agent died."""
        for group in self._cgroups.left_over():
            await group.killed()
            group.remove()
        if exec_ids:
            await self._sweeper.kill(exec_ids)

    def close(self) -> None:
        self._remove_what_can_go()
        self._cgroups.close()

    def _refuse_what_cannot_hold(self, limits: Limits) -> None:
        asked = {"memory": limits.memory_mb, "pids": limits.pids, "cpu": limits.cpu_max}
        names = {"memory": "memory_mb", "pids": "pids", "cpu": "cpu_max"}
        for controller, value in asked.items():
            if value is not None and controller not in self._cgroups.controllers:
                raise not_started(
                    f"limits.{names[controller]}: this host cannot hold it (no cgroup {controller})"
                )


def find_containment(directory: Path) -> Containment:
    """Tries out what this host has. The groups are called after ``directory``, so that a later agent for it
    finds them."""
    name = f"mars-agent-{hashlib.sha256(str(directory).encode()).hexdigest()[:12]}"
    try:
        return Containment(Cgroups(find_trees(name)), name)
    except OSError:  # There is no /proc to speak of.
        return Containment(Cgroups(()), name)
