"""What a host has for commands, as far as it told lately: memory, cores, pressure.

Owns the readings and what follows from them; it must not know what runs or waits. Unknown is None: a host
that does not tell is neither idle nor full, and then the settings hold.
"""

from gateway.asks import AdmissionSettings
from gateway.holdings import MILLI
from gateway.host import Reading

_TOLERATED_CORES_RATIO = 0.25
"""Of the cores that others may use before slots count less: on two cores the gateway, the agent and the
kernel take up to half a core while commands come and go."""

_CPU_PRESSURE = (0.4, 0.2)
_MEMORY_PRESSURE = (0.2, 0.1)
"""Shares of the last ten seconds (PSI avg10, "some") from which a brake is on, and below which it is off.
systemd-oomd kills at 0.6 of "full" (oomd.conf, DefaultMemoryPressureLimit) and the proxy admits no session at
0.6 (admission.tool_pressure_limit): not to start one more command comes long before either. CPU pressure
alone proves little, as one command of many threads stalls itself: its brake only makes others' use count."""
_HOLD_S = 30.0
"""Longest that memory pressure holds everything: then one starts, and the time begins anew. As long as
systemd-oomd looks before it acts (DefaultMemoryPressureDurationSec)."""


class Brake:
    """On at the upper threshold and off at the lower one, so that it does not flutter between."""

    def __init__(self, thresholds: tuple[float, float]) -> None:
        self._on, self._off = thresholds
        self._since_s: float | None = None

    def observe(self, pressure: float | None, now: float) -> None:
        if pressure is None or pressure <= self._off:
            self._since_s = None
        elif pressure >= self._on and self._since_s is None:
            self._since_s = now

    @property
    def is_on(self) -> bool:
        return self._since_s is not None

    def holds(self, now: float) -> bool:
        return self._since_s is not None and now - self._since_s < _HOLD_S

    def let_one_through(self, now: float) -> None:
        if self._since_s is not None:
            self._since_s = now


class HostLoad:
    def __init__(self, settings: AdmissionSettings) -> None:
        self._settings = settings
        self._at_s: float | None = None
        self._cores: float | None = None
        self._total_mb: int | None = None
        self._others_mb: float | None = None
        self._others_cores: float | None = None
        self._cpu = Brake(_CPU_PRESSURE)
        self._memory = Brake(_MEMORY_PRESSURE)

    def observe(self, reading: Reading, ours_mb: float, ours_cores: float, now: float) -> None:
        """``ours``: what commands that we started take of what the reading counts as used."""
        self._at_s = now
        self._cores = reading.cores or self._cores
        self._total_mb = reading.memory_total_mb or self._total_mb
        self._others_mb = self._others_cores = None
        if reading.memory_total_mb is not None and reading.memory_available_mb is not None:
            self._others_mb = max(0.0, reading.memory_total_mb - reading.memory_available_mb - ours_mb)
        if reading.cpu_busy is not None and self._cores is not None:
            self._others_cores = max(0.0, reading.cpu_busy * self._cores - ours_cores)
        self._cpu.observe(reading.cpu_pressure, now)
        self._memory.observe(reading.memory_pressure, now)

    def age_s(self, now: float) -> float | None:
        """Of the last reading; None before the first."""
        return None if self._at_s is None else now - self._at_s

    def is_fresh(self, now: float) -> bool:
        return self._at_s is not None and now - self._at_s <= self._settings.stale_s

    @property
    def slots_milli(self) -> int:
        slots = self._settings.slots or self._cores or 1.0
        return round(slots * MILLI)

    @property
    def short_places(self) -> int:
        places = self._settings.short_places
        return max(1, self.slots_milli // (2 * MILLI)) if places is None else places

    def usable_milli(self, now: float) -> int:
        """Slots, less what others crowd us out of: as slots and cores may differ, what they use is taken off
        the slots."""
        if not self._cpu.is_on or self._others_cores is None or self._cores is None or not self.is_fresh(now):
            return self.slots_milli
        crowd = self._others_cores - _TOLERATED_CORES_RATIO * self._cores
        return max(0, self.slots_milli - max(0, round(crowd * MILLI)))

    def memory_mb(self, now: float) -> int | None:
        """What commands may reserve together; None where neither the host nor the settings say."""
        most_mb = self._settings.memory_mb
        known = [each for each in (self._total_mb, most_mb) if each is not None]
        if not known:
            return None
        if self._total_mb is None or self._others_mb is None or not self.is_fresh(now):
            return int(self._settings.memory_blind_ratio * min(known))
        free_mb = (1 - self._settings.memory_headroom_ratio) * self._total_mb - self._others_mb
        return max(0, int(min(free_mb, *known)))

    def is_pressed(self, now: float) -> bool:
        """For memory, so that nothing more should start now."""
        return self.is_fresh(now) and self._memory.holds(now)

    def started(self, now: float) -> None:
        """A command did, so the next one waits for its time if there is pressure still."""
        if not self._memory.holds(now):
            self._memory.let_one_through(now)
