"""A named tenant's own names for families, so that nobody's sessions teach what others' will do.

A family is found from what a request says (system prompt and tools), and anybody can say it. What is learned
of a family decides which gaps are kept open and how much memory a session is promised, so a tenant that plays
another's agent badly would be felt by that other. Owns the names of one tenant's families and their bound; it
must not know what is learned of them.
"""

from collections import OrderedDict
from dataclasses import dataclass, field

MAX_FAMILIES = 64
"""Of one tenant at a time. The tables of what is learned hold a thousand families of everybody and drop the
quietest, so sixteen tenants have to make up as many as they may to push out the others'."""
QUIET_S = 3600.0
"""After so long without a turn a family makes room for another; chosen, longer than sessions pause."""
OTHERS = "*"
"""The family of whatever is more than that. Who changes the system prompt with each run learns more from all
those runs together than from each."""


@dataclass(slots=True)
class TenantFamilies:
    """One tenant's."""

    last_used_s: OrderedDict[str, float] = field(default_factory=OrderedDict)
    """Quietest first."""

    def own_name(self, tenant: str, family: str, now: float) -> str:
        """The name under which a session of the tenant's that arrives now is known."""
        used = self.last_used_s
        while used and used[next(iter(used))] + QUIET_S <= now:
            used.popitem(last=False)
        if family not in used and len(used) >= MAX_FAMILIES:
            return f"{tenant}:{OTHERS}"
        used[family] = now
        used.move_to_end(family)
        return f"{tenant}:{family}"
