"""The CPU side of admission: whether one more agent would only make the tools' queue longer.

Owns the tool hosts' headroom, and asks what memory a session's tools have needed so far. A host that
nobody reports on is no reason to wait.
"""

from marsproxy.core.events import ToolHostsObserved
from marsproxy.core.forecast import Forecast
from marsproxy.core.headroom import ToolHosts, together
from marsproxy.core.sessions import SessionState
from marsproxy.core.settings import AdmissionSettings


class ToolBudget:
    def __init__(self, settings: AdmissionSettings, forecast: Forecast) -> None:
        self._settings = settings
        self._forecast = forecast
        self.hosts = ToolHosts()

    def is_busy(self, session: SessionState, now: float) -> bool:
        """Hosts that lack memory get no new session from the gateway; the others must have a place."""
        limits = self._settings
        hosts = self.hosts.each(now, limits.telemetry_stale_s)
        foreseen_mb = self._foreseen_mb(session)
        usable = [host for host in hosts if not self._lacks_memory(host, foreseen_mb)]
        if (all_usable := together(usable)) is None:
            return bool(hosts)
        are_slow = all(is_slow(host, limits.tool_wait_limit_s) for host in usable)
        return are_slow or are_full(all_usable, limits.tools_per_core)

    def _lacks_memory(self, host: ToolHostsObserved, foreseen_mb: float) -> bool:
        limits = self._settings
        is_pressed = host.memory_pressure is not None and host.memory_pressure > limits.tool_pressure_limit
        return is_pressed or is_memory_short(host, limits.tool_memory_target, foreseen_mb)

    def _foreseen_mb(self, session: SessionState) -> float:
        """Of one tool of the session, on average; 0 where nothing is known, as for a new family."""
        return self._forecast.memory_mean_mb(None, session.family) or 0.0


def are_full(hosts: ToolHostsObserved, per_place: float) -> bool:
    """Whether so many tools are there already that one more agent would only wait. What runs while others
    wait is what the hosts have places for, be it for lack of cores or of memory. Unknown is "no"."""
    if hosts.cores is None or hosts.running is None or hosts.queued is None:
        return False
    places = min(hosts.cores, max(1, hosts.running)) if hosts.queued else hosts.cores
    return hosts.running + hosts.queued >= per_place * places


def is_slow(host: ToolHostsObserved, limit_s: float) -> bool:
    """Whether tools wait there now, and for long: few of them do, where each takes long."""
    return bool(host.queued) and host.queue_wait_s is not None and host.queue_wait_s > limit_s


def is_memory_short(hosts: ToolHostsObserved, target: float, foreseen_mb: float) -> bool:
    if hosts.memory_available_mb is None or not hosts.memory_total_mb:
        return False
    return hosts.memory_available_mb - foreseen_mb < (1 - target) * hosts.memory_total_mb
