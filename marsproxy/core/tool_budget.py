"""The CPU side of admission: whether one more agent would only make the tools' queue longer.

Owns the tool hosts' headroom and the memory that counted sessions are expected to need there. A host
that nobody reports on is no reason to wait.
"""

from marsproxy.core.forecast import Forecast
from marsproxy.core.headroom import ToolHosts
from marsproxy.core.sessions import SessionState
from marsproxy.core.settings import AdmissionSettings


class ToolBudget:
    def __init__(self, settings: AdmissionSettings, forecast: Forecast) -> None:
        self._settings = settings
        self._forecast = forecast
        self.hosts = ToolHosts()

    def count(self, session: SessionState) -> None:
        pass

    def uncount(self, session: SessionState) -> None:
        pass

    def is_busy(self, session: SessionState, now: float) -> bool:
        limits = self._settings
        hosts = self.hosts.fresh(now, limits.telemetry_stale_s)
        if hosts is None:
            return False
        if hosts.cores is not None and hosts.running is not None and hosts.queued is not None:
            if hosts.running + hosts.queued >= limits.tools_per_core * hosts.cores:
                return True
        if hosts.memory_available_mb is not None and hosts.memory_total_mb:
            if hosts.memory_available_mb < (1 - limits.tool_memory_target) * hosts.memory_total_mb:
                return True
        return hosts.memory_pressure is not None and hosts.memory_pressure > limits.tool_pressure_limit
