"""Places whose number changes while agents hold them."""

from marsproxy.core.baselines.places import Places
from marsproxy.core.events import BackendUnreachable
from marsproxy.core.settings import PolicySettings
from tests.marsproxy.core.baselines.books import book, goes
from tests.marsproxy.core.playbook import answers, arrives, calls_tool, reading, waits


class Shrinking(Places):
    """As many as the pool has thousands of tokens; unknown is two."""

    def places_on(self, backend: str) -> int:
        pool = self.backends[backend].kv_tokens_total
        return 2 if pool is None else pool // 1_000


def test_an_agent_that_is_active_goes_on_although_places_became_fewer():
    (
        book(Shrinking)
        .at(0, reading(2_000))
        .at(0, arrives("a1"), goes("a1"))
        .at(0, arrives("b1"), goes("b1"))
        .at(1, reading(1_000))
        .at(2, calls_tool("a1"))
        .at(3, arrives("a2"), goes("a2", "continuation"))
        .at(3, arrives("c1"), waits("c1"))
        .at(4, answers("b1"))
        .at(5, answers("a2"), goes("c1"))
    )


def test_all_who_wait_go_when_places_become_more():
    (
        book(Shrinking)
        .at(0, reading(1_000))
        .at(0, arrives("a1"), goes("a1"))
        .at(1, arrives("b1"), waits("b1"))
        .at(2, reading(2_000), goes("b1"))
    )


def test_an_agent_whose_backend_is_gone_takes_a_place_elsewhere():
    (
        book(Shrinking, backends=("one", "two"))
        .at(0, arrives("a1"), goes("a1", backend="one"))
        .at(1, calls_tool("a1"))
        .at(2, BackendUnreachable("one"))
        .at(3, arrives("a2"), goes("a2", "continuation", backend="two"))
    )


def test_room_is_what_is_left():
    policy = Shrinking(PolicySettings(), ["gpu"])
    policy.handle(arrives("a1"), 0.0)
    assert (policy.active_on("gpu"), policy.room_on("gpu")) == (1, 1)
