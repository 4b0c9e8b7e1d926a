"""How far sessions get, by family and by the size of their first prompt, and how much of that is chance.

Owns the hierarchy of life tables: all sessions, a family, those of a family whose first prompts are
about as large. A part says something of its own only where it differs from the whole by more than
chance lets it; else its sessions get the very numbers of the whole. Whoever orders by the estimates
would otherwise order by noise: with size no better than a guess, that bought nothing in the mean and
tripled the tail (lab). Knows neither tokens nor seconds.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from marsproxy.core.lifetable import MEMORY, LifeCurve, LifeTable

MAX_FAMILIES = 1_000
"""Families that have tables; the one that was quiet for longest goes first."""
MAX_BUCKETS = 24
"""Octaves of the first prompt: up to sixteen million tokens."""
PRIOR_COUNT = 3.0
"""Sessions that the prior counts for at the start; it fades as if they had been the first to be seen."""
LEAST_COUNT = 1.0
"""Sessions of the whole that a part is mixed with at the least: they stand for sizes it has not seen."""
CHANCE = 2.0
"""Surprise that is put down to chance. The counts are decayed, which halves their variance, so this is
two standard deviations of a part that is like the whole: one such part in twenty is taken to differ."""
MAX_POOLS = 64
"""Priors at once: backends whose pools differ in size have each their own."""
REFRESH = 8
"""A curve is computed anew when its table has changed by one part in so many, counting ends and growth
each for themselves: of ten thousand sessions that grow, the few that end say most."""


def prompt_bucket(prompt_tokens: int) -> int:
    return min(prompt_tokens.bit_length(), MAX_BUCKETS - 1)


@dataclass(slots=True)
class Part:
    """A group of sessions, and the group that it is a part of."""

    table: LifeTable
    whole: "Part | None"
    curves: dict[LifeCurve, tuple[LifeCurve, LifeCurve]] = field(default_factory=dict)
    """By prior: the curve, after the one of the whole that it was made with."""
    due_steps: float = 0.0
    due_ends: int = 0
    """What the table must have been told for its curves to be made anew."""

    def curve(self, prior: LifeCurve) -> LifeCurve:
        whole, table = self.whole, self.table
        above = prior if whole is None else whole.curve(prior)
        if table.steps >= self.due_steps or table.ends >= self.due_ends or len(self.curves) > MAX_POOLS:
            self.curves.clear()
            self.due_steps = table.steps + 1 + table.steps_kept / REFRESH
            self.due_ends = table.ends + 1 + min(table.ends, MEMORY) // REFRESH
        known = self.curves.get(prior)
        if known is None or known[0] is not above:
            known = self.curves[prior] = (above, self._mixed(above))
        return known[1]

    def _mixed(self, above: LifeCurve) -> LifeCurve:
        if self.whole is None:
            return self.table.curve(above, PRIOR_COUNT * (1 - 1 / MEMORY) ** self.table.ends)
        surprise = self.table.surprise(above)
        if surprise <= CHANCE:
            return above
        # James and Stein: the share of the whole in the mixture is that of chance in the surprise.
        chance_count = self.table.members * CHANCE / (surprise - CHANCE)
        return self.table.curve(above, max(LEAST_COUNT, chance_count))


@dataclass(slots=True)
class Family:
    own: Part
    buckets: dict[int, Part] = field(default_factory=dict)


Place = tuple[str, int]
"""A family, and the bucket of a session's first prompt."""


class FamilyTables:
    """The tables of all families; the one that was quiet for longest goes first.

    Args:
        is_one_kind: families are parts of one whole. Else each starts from the prior.
    """

    def __init__(self, edges: Sequence[float], *, is_one_kind: bool) -> None:
        self._edges = edges
        self._all = Part(LifeTable(edges), None) if is_one_kind else None
        self._families: OrderedDict[str, Family] = OrderedDict()

    def curve(self, place: Place, prior: LifeCurve) -> LifeCurve:
        family = self._families.get(place[0])
        if family is None:
            return prior if self._all is None else self._all.curve(prior)
        return family.buckets.get(place[1], family.own).curve(prior)

    def parts(self, place: Place) -> list[Part]:
        """Those that a session at ``place`` belongs to, made if need be: what it does is told to each."""
        family = self._families.get(place[0])
        if family is None:
            family = self._families[place[0]] = Family(Part(LifeTable(self._edges), self._all))
            if len(self._families) > MAX_FAMILIES:
                self._families.popitem(last=False)
        self._families.move_to_end(place[0])
        part = family.buckets.get(place[1])
        if part is None:
            part = family.buckets[place[1]] = Part(LifeTable(self._edges), family.own)
        return [part, family.own] if self._all is None else [part, family.own, self._all]
