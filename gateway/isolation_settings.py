"""What may be written in the settings of a host about its isolation: ``session_uids`` and ``sandbox``.

Owns the words and what is said of wrong ones. It must not know how a host isolates anything.
"""

import re

from gateway.host_agent.isolation import LARGEST_UID, LEAST_UID, SANDBOXES, Isolation
from gateway.limits import ConfigError

_RANGE = re.compile(r"([0-9]{1,10})-([0-9]{1,10})")


def isolation_from(session_uids: str | None, sandbox: str) -> Isolation:
    """Raises ConfigError, which begins with the setting's name."""
    if sandbox not in SANDBOXES:
        raise ConfigError(f"sandbox: must be one of {', '.join(SANDBOXES)}, not {sandbox!r}")
    return Isolation(None if session_uids is None else _uids(session_uids), sandbox)


def _uids(text: str) -> tuple[int, int]:
    found = _RANGE.fullmatch(text)
    first, last = (int(found[1]), int(found[2])) if found else (0, 0)
    if not LEAST_UID <= first <= last <= LARGEST_UID:
        allowed = f"a range such as '200000-265535', within {LEAST_UID} to {LARGEST_UID}"
        raise ConfigError(f"session_uids: must be {allowed}, not {text!r}")
    return first, last
