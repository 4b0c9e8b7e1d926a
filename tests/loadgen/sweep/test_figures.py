"""Medians, and ratios of the same seed: each says how many times better."""

from typing import Any

import pytest

from loadgen.comparison import Metric
from loadgen.sweep.cells import Cell, Recipe
from loadgen.sweep.figures import JCT, Figures, Point, collect, ratio_of
from loadgen.sweep.metrics import metric_named
from loadgen.sweep.outcomes import Outcome

KNEE = Point(load=1.0)


def figures(by_policy: dict[str, list[dict[str, Any]]]) -> Figures:
    found = Figures()
    for policy, summaries in by_policy.items():
        found.summaries["w", KNEE, policy] = dict(enumerate(summaries, start=1))
    return found


def jcts(*means: float | None) -> list[dict[str, Any]]:
    return [{"jct_s": {"mean": mean}} for mean in means]


def test_a_ratio_is_seed_by_seed_and_names_the_worst() -> None:
    found = figures({"fcfs": jcts(100, 900, 200), "mars": jcts(100, 100, 400)})
    ratio = found.ratio(JCT, "w", KNEE, "mars", "fcfs")
    assert ratio is not None
    assert ratio.by_seed == {1: 1.0, 2: 9.0, 3: 0.5}
    assert (ratio.median, ratio.worst, ratio.worst_seed) == (1.0, 0.5, 3)
    assert ratio.pooled == 1200 / 600
    assert [ratio.of(name) for name in ("median", "pooled", "worst")] == [1.0, 2.0, 0.5]


def test_more_is_better_of_a_throughput() -> None:
    metric = metric_named("throughput_turns_per_s")
    ratio = ratio_of(metric, {1: 2.0}, {1: 1.0})
    assert ratio is not None
    assert ratio.median == 2.0


@pytest.mark.parametrize("metric", [JCT, metric_named("goodput_alpha3")])
def test_two_nothings_are_equal(metric: Metric) -> None:
    ratio = ratio_of(metric, {1: 0.0}, {1: 0.0})
    assert ratio is not None
    assert ratio.median == 1.0


def test_what_only_one_has_is_not_compared() -> None:
    found = figures({"fcfs": jcts(100, None), "mars": jcts(None, 100)})
    assert found.median(("w", KNEE, "fcfs"), JCT) == 100
    assert found.ratio(JCT, "w", KNEE, "mars", "fcfs") is None
    assert found.ratio(JCT, "w", KNEE, "mars", "nobody") is None


def test_the_best_is_chosen_seed_by_seed() -> None:
    found = figures({"a": jcts(100, 300), "b": jcts(200, 150)})
    assert found.best_by_seed("w", KNEE, ["a", "b"], JCT) == {1: 100, 2: 150}


def test_failed_and_missing_cells_give_no_figure() -> None:
    cells = [
        Cell("w", "mars", seed, Recipe("s", 1, seed, "h", "m", 1, "mars", rate_per_s=1.0), load=1.0)
        for seed in (1, 2, 3)
    ]
    outcomes = {
        cells[0].key: Outcome(cells[0].key, cells[0], {"jct_s": {"mean": 7.0}}),
        cells[1].key: Outcome(cells[1].key, cells[1], error="broken"),
    }
    found = collect(cells, outcomes)
    assert found.by_seed(("w", KNEE, "mars"), JCT) == {1: 7.0}
    assert found.errors == {("w", KNEE, "mars"): {2: "broken"}}


def test_metrics_that_nobody_knows_are_left_out() -> None:
    found = figures({"fcfs": jcts(100)})
    assert found.known_metrics("w", [JCT, metric_named("preemptions")]) == [JCT]
