"""What tools took, by tool and family."""

import pytest

from marsproxy.core.histogram import Curve, log_edges
from marsproxy.core.toolpast import MAX_TOOLS, ToolPast

EDGES = log_edges(-2, 4, 4)
PRIOR = Curve(EDGES, [(i + 1) / len(EDGES) for i in range(len(EDGES))])


def test_before_anything_is_seen_the_prior_holds() -> None:
    past = ToolPast(PRIOR)
    assert past.curve("family", "bash") is PRIOR
    assert past.mean("family", "bash") is None


def test_a_tool_is_judged_by_its_own_calls() -> None:
    past = ToolPast(PRIOR)
    for _ in range(50):
        past.add("family", "grep", 0.05)
        past.add("family", "pytest", 60.0)
    assert past.curve("family", "grep").quantile(0.5) < 0.1
    assert 30 < past.curve("family", "pytest").quantile(0.5) < 100


def test_a_tool_that_is_new_to_a_family_is_judged_by_what_it_took_in_others() -> None:
    past = ToolPast(PRIOR)
    for _ in range(50):
        past.add("one", "pytest", 60.0)
        past.add("one", "grep", 0.05)
    assert past.curve("two", "pytest").share_within(1.0) < 0.2
    assert past.mean("two", "pytest") == pytest.approx(60, rel=0.1)


def test_one_name_in_two_families_is_two_tools() -> None:
    past = ToolPast(PRIOR)
    for _ in range(50):
        past.add("quick", "bash", 0.05)
        past.add("slow", "bash", 60.0)
    assert past.curve("quick", "bash").quantile(0.5) < 0.1
    assert past.curve("slow", "bash").quantile(0.5) > 30


def test_of_an_unknown_tool_the_family_is_all_that_can_be_said() -> None:
    past = ToolPast(PRIOR)
    for _ in range(50):
        past.add("family", "bash", 60.0)
    assert past.curve("family", None).quantile(0.5) > 30


def test_kept_curves_follow_what_is_added() -> None:
    past = ToolPast(PRIOR)
    for value in [0.1] * 400 + [60.0] * 1_200:
        past.add("family", "bash", value)
        curve = past.curve("family", "bash")
    assert curve.share_within(1.0) < 0.1


def test_tools_are_bounded_and_the_quietest_goes_first() -> None:
    past = ToolPast(PRIOR)
    past.add("first", "bash", 60.0)
    for number in range(MAX_TOOLS):
        past.add(f"family-{number}", None, 60.0)
    first, latest = past.curve("first", None), past.curve(f"family-{MAX_TOOLS - 1}", None)
    assert first.share_within(10) > latest.share_within(10)
