"""Which of several backends: the least loaded for a new session, and its own for one that has run."""

from marsproxy.core.events import BackendUnreachable
from marsproxy.core.evidence import TurnKind
from tests.marsproxy.core.playbook import (
    Playbook,
    answers,
    arrives,
    calls_tool,
    goes,
    reading,
    side_call,
    waits,
)


def test_a_return_leaves_a_backend_that_cannot_be_reached():
    (
        Playbook(backends=["one", "two"])
        .at(1, arrives("a1"), goes("a1", backend="one"))
        .at(2, answers("a1"))
        .at(3, BackendUnreachable("one"))
        .at(4, arrives("a2"), goes("a2", "return", backend="two"))
    )


def test_sessions_spread_over_backends_and_stay_there():
    (
        Playbook(backends=["one", "two"])
        .at(1, arrives("a1"), goes("a1", backend="one"))
        .at(1, arrives("b1"), goes("b1", backend="two"))
        .at(2, answers("b1"))
        .at(2, calls_tool("a1"))
        .at(3, arrives("a2"), goes("a2", "continuation", backend="one"))
        .at(4, arrives("b2"), goes("b2", "continuation", backend="two"))
    )


def test_each_backend_has_its_own_budget():
    book = Playbook(backends=["one", "two"])
    for name, backend in zip("abcdefghijkl", ["one", "two"] * 6, strict=True):
        book.at(1, arrives(f"{name}1"), goes(f"{name}1", backend=backend))
    book.at(2, arrives("m1"), waits("m1")).at(3, answers("b1"), goes("m1", backend="two"))


def test_a_larger_pool_takes_more_sessions():
    book = Playbook(backends=["small", "large"], pool_tokens=None)
    book.at(0, reading(40_000, "small")).at(0, reading(400_000, "large"))
    backends = ["small", *["large"] * 10, "small"]
    for name, backend in zip("abcdefghijkl", backends, strict=True):
        book.at(1, arrives(f"{name}1"), goes(f"{name}1", backend=backend))


def test_a_backend_of_which_nothing_is_known_comes_after_one_with_room():
    book = Playbook(backends=["dark", "seen"], pool_tokens=None).at(0, reading(backend="seen"))
    for name, backend in zip("abc", ["dark", "seen", "seen"], strict=True):
        book.at(1, arrives(f"{name}1"), goes(f"{name}1", backend=backend))


def test_a_side_call_follows_its_session_or_goes_where_the_fewest_are():
    (
        Playbook(backends=["one", "two"])
        .at(1, arrives("a1"), goes("a1", backend="one"))
        .at(2, side_call("title1"), goes("title1", "side", backend="two"))
        .at(3, side_call("a2"), goes("a2", "side", backend="one"))
        .at(4, BackendUnreachable("two"))
        .at(5, side_call("title2"), goes("title2", "side", backend="one"))
    )


def test_a_warm_return_stays_although_another_backend_has_more_room():
    book = Playbook(backends=["one", "two"]).at(1, arrives("a1"), goes("a1", backend="one"))
    book.at(2, answers("a1")).at(3, arrives("b1"), goes("b1", backend="one"))
    book.at(4, arrives("a2"), goes("a2", "continuation", backend="one"))


def test_a_cold_return_moves_to_where_there_is_most_room():
    """90,000 tokens went through its backend since; one of the two others is empty."""
    (
        Playbook(backends=["one", "two"], warm_share=1.0)
        .at(1, arrives("a1"), goes("a1", backend="one"))
        .at(2, answers("a1"))
        .at(3, arrives("b1", tokens=86_000), goes("b1", backend="one"))
        .at(4, calls_tool("b1", context=86_000))
        .at(5, arrives("a2"), goes("a2", "return", backend="two"))
        .at(6, calls_tool("a2"))
        .at(7, arrives("a3"), goes("a3", "continuation", backend="two"))
    )


def test_a_warm_return_to_a_backend_that_cannot_be_reached_waits_like_any_other():
    book = Playbook(backends=["one", "two"]).at(1, arrives("a1"), goes("a1", backend="one"))
    book.at(2, answers("a1")).at(3, arrives("big1", tokens=90_000), goes("big1", backend="one"))
    book.at(3, arrives("big2-1", tokens=90_000), goes("big2-1", backend="two"))
    book.at(4, BackendUnreachable("one"))
    book.at(5, arrives("a2"), waits("a2"))
    book.at(6, answers("big2-1"), goes("a2", "return", backend="two"))


def test_a_condensed_session_may_stay_where_it_was():
    (
        Playbook(backends=["one", "two"])
        .at(1, arrives("a1"), goes("a1", backend="one"))
        .at(2, answers("a1"))
        .at(3, arrives("a2", kind=TurnKind.CONDENSED), goes("a2", "return", backend="one"))
    )


def test_what_a_family_shares_is_charged_on_each_backend():
    book = Playbook(backends=["one", "two"]).at(0, arrives("a1"), goes("a1", backend="one"))
    book.at(0, answers("a1", cached_tokens=10_000))
    book.at(1, arrives("b1"), goes("b1", backend="one")).at(1, arrives("c1"), goes("c1", backend="two"))
    assert book.policy.reserved_tokens(1) == {"one": 15_000, "two": 15_000}
