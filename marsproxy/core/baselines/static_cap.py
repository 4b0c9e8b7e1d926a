"""A fixed number of agents at once on each backend, first come, first served.

What people do by hand: a limit on concurrent agents, in the harness or in front of the server. Searched for
each workload it is a strong baseline, as it keeps the cache from thrashing; it knows neither how large the
agents are nor whether they are at work or wait for tools.
"""

from marsproxy.core.baselines.places import Places


class StaticCap(Places):
    """The limit is ``admission.static_cap_sessions``, and nothing moves it."""

    def places_on(self, backend: str) -> int:
        return self.limits.static_cap_sessions
