"""The patch's settings: ``--additional-config '{"mars": {...}}'`` of ``vllm serve``, read once.

Owns names, units, defaults and bounds. Bad ones stop the engine at start-up with a sentence that names the
key; nothing here is looked up again later.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

CONFIG_KEY = "mars"
"""Member of vLLM's ``additional_config`` that is ours."""


class SettingsError(ValueError):
    """A key that is not known, or a value that is not allowed."""


@dataclass(frozen=True, slots=True)
class PatchSettings:
    leases: bool = True
    """Keep blocks of sessions that will return. Off: hints are refused, requests' own are ignored."""
    order: bool = True
    """Sort the waiting and the running queue; off is vLLM's own order."""
    interleave: bool = True
    """Halve the chunks of long prefills, but only while a continuation waits."""
    publish: bool = True
    """Write the state into shared memory after steps. Off for a scheduler that no server asks about."""
    max_leased_share: float = 0.9
    """Of all blocks, 0 to 1. The rest is for those that run: they would break leases block by block else."""
    max_ttl_s: float = 300.0
    """Longest lease. A client that never returns may hold blocks for so long, memory permitting."""
    aging_s: float = 30.0
    """Who has waited for so long goes first and may break soft leases, so that nobody starves."""
    max_sessions: int = 4096
    """Branches of sessions that are remembered; the least recently used one makes room."""
    session_expiry_s: float = 3600.0
    """A session that is silent for so long is forgotten: nobody says when one is over."""

    BOUNDS: ClassVar[Mapping[str, tuple[float, float]]] = {
        "max_leased_share": (0.0, 1.0),
        "max_ttl_s": (0.0, 86_400.0),
        "aging_s": (0.0, 86_400.0),
        "max_sessions": (1, 1_000_000),
        "session_expiry_s": (1.0, 604_800.0),
    }
    """Least and greatest value allowed. The upper ones of times are a day and a week."""

    @classmethod
    def from_additional_config(cls, config: object) -> Self:
        """
        Raises:
            SettingsError: it names the key and what is allowed.
        """
        section = config.get(CONFIG_KEY, {}) if isinstance(config, Mapping) else {}
        if not isinstance(section, Mapping):
            raise SettingsError(f"additional_config.{CONFIG_KEY} must be an object, not {section!r}")
        known = {field.name: field.type for field in fields(cls)}
        for key in section:
            if key not in known:
                raise SettingsError(
                    f"additional_config.{CONFIG_KEY}.{key} is not known; allowed: {', '.join(known)}"
                )
        values: dict[str, Any] = {key: _checked(key, known[key], value) for key, value in section.items()}
        return cls(**values)


def _checked(key: str, kind: Any, value: object) -> bool | int | float:
    where = f"additional_config.{CONFIG_KEY}.{key}"
    if kind is bool:
        if not isinstance(value, bool):
            raise SettingsError(f"{where} must be true or false, not {value!r}")
        return value
    least, greatest = PatchSettings.BOUNDS[key]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or (kind is int and not isinstance(value, int)):
        raise SettingsError(f"{where} must be {_noun(kind)} from {least:g} to {greatest:g}, not {value!r}")
    assert isinstance(value, int | float)
    if not least <= value <= greatest:
        raise SettingsError(f"{where} must be from {least:g} to {greatest:g}, not {value!r}")
    return int(value) if kind is int else float(value)


def _noun(kind: Any) -> str:
    return "a whole number" if kind is int else "a number"
