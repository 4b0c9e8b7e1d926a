"""Backends that come, go, drain, serve some models, differ in size, and fail a turn."""

from typing import Any

from marsproxy.core.commands import ForwardTurn, KvAction, Reason
from marsproxy.core.events import (
    BackendsChanged,
    BackendSpec,
    BackendUnreachable,
    StandingAlone,
    TurnBounced,
    TurnResumed,
)
from marsproxy.core.evidence import TurnKind
from marsproxy.core.histogram import certain
from tests.marsproxy.core.playbook import (
    ROUND_NUMBERS,
    Foretold,
    Playbook,
    answers,
    arrives,
    calls_tool,
    demotes,
    goes,
    goes_leased,
    reading,
    refused,
    side_call,
    waits,
)

TWO = ("one", "two")


def backends(*specs: BackendSpec | str) -> BackendsChanged:
    return BackendsChanged(tuple(BackendSpec(spec) if isinstance(spec, str) else spec for spec in specs))


def draining(name: str) -> BackendSpec:
    return BackendSpec(name, is_draining=True)


def serving(name: str, *models: str) -> BackendSpec:
    return BackendSpec(name, models)


def two(**changes: Any) -> Playbook:
    return Playbook(backends=TWO, **changes)


# -- come and go ----------------------------------------------------------------------------------


def test_a_backend_that_comes_takes_sessions() -> None:
    book = Playbook(backends=["one"]).at(1, arrives("a1"), goes("a1", backend="one"))
    book.at(2, backends("one", "two")).at(2, reading(backend="two"))
    book.at(3, arrives("b1"), goes("b1", backend="two"))


def test_a_policy_may_begin_without_backends_and_holds_what_comes() -> None:
    book = Playbook(backends=[]).at(1, arrives("a1"), waits("a1", Reason.NO_BACKEND))
    book.at(2, backends("one"), goes("a1", backend="one"))


def test_what_was_on_a_backend_that_is_gone_returns_elsewhere() -> None:
    book = two().at(1, arrives("a1"), goes("a1", backend="one")).at(2, calls_tool("a1"))
    book.at(3, backends("two"))
    assert list(book.policy.backends) == ["two"]
    book.at(4, arrives("a2", kind=TurnKind.CONTINUATION), goes("a2", "return", backend="two"))


def test_a_turn_in_flight_on_a_backend_that_is_gone_may_end_there() -> None:
    """Its session is counted as long, and the backend kept in the books."""
    book = two().at(1, arrives("a1"), goes("a1", backend="one")).at(2, backends("two"))
    assert set(book.policy.backends) == set(TWO)
    book.at(3, calls_tool("a1"))
    assert list(book.policy.backends) == ["two"]
    book.at(4, arrives("a2", kind=TurnKind.CONTINUATION), goes("a2", "return", backend="two"))


def test_a_backend_that_is_gone_is_not_heard() -> None:
    book = two().at(1, backends("two")).at(2, reading(backend="one")).at(2, BackendUnreachable("one"))
    book.at(3, arrives("a1"), goes("a1", backend="two"))
    assert list(book.policy.backends) == ["two"]


def test_nothing_is_warm_on_a_backend_that_was_away() -> None:
    book = two().at(1, arrives("a1"), goes("a1", backend="one")).at(2, answers("a1"))
    book.at(3, backends("two")).at(4, backends("one", "two")).at(4, reading(backend="one"))
    book.at(5, arrives("b1"), goes("b1", backend="one"))
    book.at(6, arrives("a2", kind=TurnKind.CONTINUATION), goes("a2", "return", backend="two"))


def test_where_all_are_gone_turns_wait_and_are_told_why_in_the_end() -> None:
    book = two(max_hold_s=50.0).at(1, backends()).at(2, arrives("a1"), waits("a1", Reason.NO_BACKEND))
    book.at(3, side_call("title1"), refused("title1", Reason.NO_BACKEND))
    book.fires(52, refused("a1", Reason.NO_BACKEND))


# -- drain ----------------------------------------------------------------------------------------


def test_a_backend_that_drains_keeps_those_at_work_and_takes_nobody() -> None:
    book = two().at(1, arrives("a1"), goes("a1", backend="one")).at(2, calls_tool("a1"))
    book.at(3, backends(draining("one"), "two"))
    book.at(4, arrives("b1"), goes("b1", backend="two")).at(4, arrives("c1"), goes("c1", backend="two"))
    book.at(5, arrives("a2"), goes("a2", "continuation", backend="one"))


def test_a_warm_session_leaves_a_backend_that_drains() -> None:
    book = two().at(1, arrives("a1"), goes("a1", backend="one")).at(2, answers("a1"))
    book.at(3, backends(draining("one"), "two"))
    book.at(4, arrives("a2", kind=TurnKind.CONTINUATION), goes("a2", "return", backend="two"))


def test_where_all_drain_those_at_work_go_on_and_others_wait_for_a_new_one() -> None:
    book = two().at(1, arrives("a1"), goes("a1", backend="one")).at(2, calls_tool("a1"))
    book.at(3, backends(draining("one"), draining("two")))
    book.at(4, arrives("b1"), waits("b1", Reason.NO_BACKEND))
    book.at(5, arrives("a2"), goes("a2", "continuation", backend="one"))
    book.at(6, side_call("title1"), goes("title1", "side", backend="two"))
    book.at(7, backends(draining("one"), "three"), goes("b1", backend="three"))


# -- models ---------------------------------------------------------------------------------------


def test_a_turn_goes_where_its_model_is_served() -> None:
    book = two().at(0, backends(serving("one", "small"), serving("two", "small", "large")))
    book.at(1, arrives("a1", model="large"), goes("a1", backend="two"))
    book.at(1, arrives("b1", model="small"), goes("b1", backend="one"))
    book.at(2, arrives("c1", model="large"), goes("c1", backend="two"))
    book.at(3, side_call("title1", model="large"), goes("title1", "side", backend="two"))


def test_a_model_that_nobody_names_goes_to_whoever_may_have_it_else_anywhere() -> None:
    book = two().at(0, backends(serving("one", "small"), "two"))
    book.at(1, arrives("a1", model="odd"), goes("a1", backend="two"))
    book.at(1, arrives("b1", model="odd"), goes("b1", backend="two"))
    book.at(2, backends(serving("one", "small"), serving("two", "large")))
    book.at(3, arrives("c1", model="odd"), goes("c1", backend="one"))


def test_a_session_moves_when_its_model_is_not_served_at_home() -> None:
    book = two().at(0, backends(serving("one", "small"), serving("two", "large")))
    book.at(1, arrives("a1", model="small"), goes("a1", backend="one")).at(2, calls_tool("a1"))
    book.at(3, arrives("a2", model="large"), goes("a2", "return", backend="two")).at(4, answers("a2"))
    book.at(5, arrives("a3", model="small"), goes("a3", "return", backend="one"))


def test_beside_a_turn_in_flight_another_model_takes_no_place() -> None:
    book = two().at(0, backends(serving("one", "small"), serving("two", "large")))
    book.at(1, arrives("a1", model="small"), goes("a1", backend="one"))
    book.at(2, arrives("a2", model="large"), goes("a2", "side", backend="two"))
    assert [len(backend.counted) for backend in book.policy.backends.values()] == [1, 0]
    book.at(3, calls_tool("a2")).at(4, calls_tool("a1"))
    book.at(5, arrives("a3", model="small"), goes("a3", "continuation", backend="one"))


def test_who_waits_for_one_model_is_in_nobodys_way_who_wants_another() -> None:
    book = two(look_ahead=0).at(0, backends(serving("one", "small"), serving("two", "large")))
    book.at(1, arrives("big1", tokens=90_000, model="small"), goes("big1", backend="one"))
    book.at(2, arrives("a1", model="small"), waits("a1"))
    book.at(3, arrives("b1", model="small"), waits("b1", Reason.BEHIND_OTHERS, 2))
    book.at(4, arrives("c1", model="large"), goes("c1", backend="two"))


def test_nobody_is_passed_for_ever_on_a_backend_that_two_models_share() -> None:
    """The large turn could go to "one" alone, small ones to both: after four of them it is next."""
    book = two(max_overtakes=4).at(0, backends(serving("one", "small", "large"), serving("two", "small")))
    book.at(1, arrives("filler1", tokens=30_000, model="large"), goes("filler1", backend="one"))
    book.at(1, arrives("full1", tokens=90_000, model="small"), goes("full1", backend="two"))
    book.at(2, arrives("big1", tokens=80_000, model="large"), waits("big1"))
    for name in "abcd":
        book.at(3, arrives(f"{name}1", model="small"), goes(f"{name}1", backend="one"))
        book.at(3, answers(f"{name}1"))
    book.at(4, arrives("e1", model="small"), waits("e1", Reason.BEHIND_OTHERS, 2))
    book.at(5, answers("full1"), goes("e1", backend="two"))


# -- sizes ----------------------------------------------------------------------------------------


def uneven() -> Playbook:
    book = Playbook(backends=["small", "large"], pool_tokens=None)
    return book.at(0, reading(40_000, "small")).at(0, reading(400_000, "large"))


def test_a_session_that_is_larger_than_a_pool_waits_for_a_larger_one() -> None:
    book = uneven().at(1, arrives("a1", tokens=50_000), goes("a1", backend="large"))
    book.at(2, arrives("b1", tokens=300_000), goes("b1", backend="large"))
    book.at(3, arrives("c1", tokens=50_000), waits("c1"))
    book.at(4, arrives("d1"), goes("d1", backend="small"))
    book.at(5, answers("b1", context=300_000), goes("c1", backend="large"))


def test_a_session_that_fits_only_the_fuller_of_two_goes_there() -> None:
    """By share "small" is the emptier, and has no room for it."""
    book = uneven().at(1, arrives("a1"), goes("a1", backend="small"))
    book.at(1, arrives("b1", tokens=180_000), goes("b1", backend="large"))
    book.at(2, arrives("c1", tokens=30_000), goes("c1", backend="large"))


def test_a_session_that_outgrows_its_pool_moves_to_a_larger_one() -> None:
    book = uneven().at(1, arrives("a1"), goes("a1", backend="small")).at(2, calls_tool("a1", context=35_000))
    book.at(3, arrives("a2", tokens=41_000), goes("a2", "return", backend="large"))


# -- turns that a backend failed ------------------------------------------------------------------


def test_a_turn_that_bounces_goes_elsewhere_and_its_place_with_it() -> None:
    book = two().at(1, arrives("a1"), goes("a1", backend="one"))
    book.at(2, TurnBounced("a1", "one"), goes("a1", "return", backend="two"))
    assert [len(backend.counted) for backend in book.policy.backends.values()] == [0, 1]
    book.at(3, calls_tool("a1")).at(4, arrives("a2"), goes("a2", "continuation", backend="two"))


def test_a_turn_that_bounced_everywhere_is_refused() -> None:
    book = two().at(1, arrives("a1"), goes("a1", backend="one"))
    book.at(2, TurnBounced("a1", "one"), goes("a1", "return", backend="two"))
    book.at(3, TurnBounced("a1", "two"), refused("a1", Reason.BACKEND_LOST))
    assert book.policy.open_turns == 0


def test_a_turn_bounces_to_none_that_drains_or_serves_another_model_or_does_not_answer() -> None:
    book = Playbook(backends=["one", "two", "three", "four"])
    book.at(0, backends(*(serving(name, "m") for name in ("one", "two", "three")), serving("four", "n")))
    book.at(1, arrives("a1", model="m"), goes("a1", backend="one"))
    book.at(2, backends(serving("one", "m"), draining("two"), serving("three", "m"), serving("four", "n")))
    book.at(3, BackendUnreachable("three"))
    book.at(4, TurnBounced("a1", "one"), refused("a1", Reason.BACKEND_LOST))


def test_a_turn_that_bounces_waits_by_when_it_arrived() -> None:
    """Due before the one that came while it was in flight, and no longer held than from its arrival."""
    book = two(deadline_slack=1.0, max_hold_s=50.0, look_ahead=0)
    book.at(1, arrives("a1", tokens=20_000), goes("a1", backend="one"))
    book.at(2, arrives("x1", tokens=85_000), goes("x1", backend="two"))
    book.at(3, arrives("y1", tokens=65_000), goes("y1", backend="one"))
    book.at(10, arrives("b1", tokens=20_000), waits("b1"))
    book.at(20, TurnBounced("a1", "one"), goes("b1", backend="one"), waits("a1"))
    book.fires(51, refused("a1", Reason.HELD_TOO_LONG))


def test_a_turn_that_bounces_after_its_time_to_wait_is_refused_if_it_does_not_fit_at_once() -> None:
    book = two(max_hold_s=50.0).at(1, arrives("a1", tokens=20_000), goes("a1", backend="one"))
    book.at(2, arrives("x1", tokens=85_000), goes("x1", backend="two"))
    book.at(60, TurnBounced("a1", "one"), waits("a1")).fires(60, refused("a1", Reason.HELD_TOO_LONG))


def test_a_bounce_that_is_told_again_or_late_is_nothing() -> None:
    book = two().at(1, arrives("a1"), goes("a1", backend="one"))
    book.at(2, TurnBounced("a1", "two")).at(2, TurnBounced("stranger1", "one"))
    book.at(3, TurnBounced("a1", "one"), goes("a1", "return", backend="two"))
    book.at(4, TurnBounced("a1", "one")).at(5, answers("a1")).at(6, TurnBounced("a1", "two"))


def test_a_side_call_bounces_too() -> None:
    book = two().at(1, side_call("title1"), goes("title1", "side", backend="one"))
    book.at(2, TurnBounced("title1", "one"), goes("title1", "side", backend="two"))
    book.at(3, TurnBounced("title1", "two"), refused("title1", Reason.BACKEND_LOST))


def test_one_of_two_turns_that_bounces_leaves_its_session_where_the_other_is() -> None:
    book = two().at(1, arrives("a1"), goes("a1", backend="one"))
    book.at(2, arrives("a2"), goes("a2", "continuation", backend="one"))
    book.at(3, TurnBounced("a2", "one"), goes("a2", "side", backend="two"))
    assert [len(backend.counted) for backend in book.policy.backends.values()] == [1, 0]
    book.at(4, TurnBounced("a1", "one"), goes("a1", "return", backend="two"))
    assert [len(backend.counted) for backend in book.policy.backends.values()] == [0, 1]


def test_what_was_kept_where_a_turn_bounced_is_let_go() -> None:
    book = two(takes_hints=True).at(1, arrives("a1"), goes_leased("a1", backend="one"))
    book.at(2, calls_tool("a1")).at(3, arrives("a2"), goes_leased("a2", "continuation", backend="one"))
    book.at(
        4,
        TurnBounced("a2", "one"),
        demotes("a", backend="one"),
        goes_leased("a2", "return", backend="two"),
    )


# -- overdue places -------------------------------------------------------------------------------


def test_a_place_is_given_up_only_where_the_turn_can_go() -> None:
    """Both are overdue, the longer one where the model of the turn that waits is not served."""
    forecast = Foretold(gap=certain(1.0))
    book = Playbook(backends=TWO, forecast=forecast, takes_hints=True)
    book.at(0, backends(serving("one", "m"), serving("two", "n")))
    book.at(1, arrives("a1", model="m", tokens=90_000), goes_leased("a1", backend="one"))
    book.at(1, arrives("b1", model="n", tokens=90_000), goes_leased("b1", backend="two"))
    book.at(2, calls_tool("a1", context=90_000)).at(3, calls_tool("b1", context=90_000))
    now = 3 + ROUND_NUMBERS.idle_gap_s / 2
    book.quiet_until(now)
    commands = book.policy.handle(arrives("c1", model="n", tokens=90_000), now)
    hints = [(c.session_id, c.action) for c in commands if hasattr(c, "action")]
    assert hints == [("b", KvAction.RELEASE)]
    assert [c.backend for c in commands if isinstance(c, ForwardTurn)] == ["two"]
    session = book.policy.sessions.get("a")
    assert session is not None
    assert session.is_counted


# -- and replicas ---------------------------------------------------------------------------------


def test_a_verdict_is_told_again_unless_its_backend_is_gone() -> None:
    """Then the turn goes on elsewhere: it had not reached the one that is gone."""
    book = two().at(1, first := arrives("a1"), goes("a1", backend="one"))
    book.at(2, TurnResumed(first, None), goes("a1", backend="one"))
    book.at(3, backends("two")).at(4, TurnResumed(first, None), goes("a1", "return", backend="two"))
    assert list(book.policy.backends) == ["two"]


def test_a_session_that_is_others_goes_on_here_though_its_backend_is_gone() -> None:
    """Its earlier turn is still in flight, and counted nowhere any more."""
    book = two().at(1, arrives("a1"), goes("a1", backend="one"))
    book.at(2, StandingAlone(2, ("a",))).at(3, backends("two"))
    book.at(4, arrives("a2", kind=TurnKind.CONTINUATION), goes("a2", "return", backend="two"))
    book.at(5, calls_tool("a1")).at(6, calls_tool("a2"))
    assert [len(backend.counted) for backend in book.policy.backends.values()] == [1]


def test_a_turn_that_bounces_alone_asks_for_its_share() -> None:
    """Of a pool that nobody has been promised anything of, half is this replica's."""
    book = two().at(1, arrives("a1", tokens=40_000), goes("a1", backend="one"))
    book.at(2, StandingAlone(2)).at(3, arrives("b1", tokens=40_000), goes("b1", backend="two"))
    book.at(4, TurnBounced("a1", "one"), waits("a1"))
    book.at(5, answers("b1"), goes("a1", "return", backend="two"))
