"""A bar passes or misses by its deciding figure, and is not judged without one."""

from typing import Any

import msgspec
import pytest

from loadgen.sweep.bars import Verdict, judgement
from loadgen.sweep.figures import Figures, Point
from loadgen.sweep.grid import Bar, Grid
from loadgen.sweep.grid_file import parse_grid
from loadgen.sweep.knee import Knee
from tests.loadgen.sweep.toy import TOY_GRID

MEANS: dict[str, dict[float, tuple[float, ...]]] = {
    "fcfs": {0.25: (100, 100, 100), 1.0: (200, 800, 200), 1.5: (900, 900, 900)},
    "mars": {0.25: (100, 100, 100), 1.0: (100, 100, 210), 1.5: (150, 150, 150)},
    "oracle": {0.25: (100, 100, 100), 1.0: (100, 100, 100), 1.5: (120, 120, 120)},
    "priority": {1.2: (200, 200, 200)},
}


def toy() -> Grid:
    grid = parse_grid(TOY_GRID, "toy")
    return msgspec.structs.replace(grid, workloads=grid.workloads[:1])


def toy_figures() -> Figures:
    found = Figures()
    for policy, by_load in MEANS.items():
        for load, means in by_load.items():
            found.summaries["steady", Point(load=load), policy] = {
                seed: {"jct_s": {"mean": mean}} for seed, mean in enumerate(means, start=1)
            }
    found.summaries["steady", Point(load=1.2), "mars"] = {1: {"jct_s": {"mean": 100}}}
    return found


@pytest.mark.parametrize(
    ("bar", "verdict", "closest"),
    [
        ({"loads": (1.0, 1.5), "at_least": 2.0}, "PASS", 2.0),
        ({"loads": (1.0, 1.5), "at_least": 3.0}, "MISS", 2.0),
        ({"loads": (1.0, 1.5), "at_least": 5.0, "how": "any"}, "PASS", 6.0),
        ({"loads": (1.0,), "at_least": 0.98, "seeds": "worst"}, "MISS", 200 / 210),
        ({"loads": (1.0,), "at_least": 3.0, "seeds": "pooled"}, "MISS", 1200 / 410),
        ({"at_least": 0.9}, "PASS", 1.0),
        ({"over": ("oracle",), "loads": (1.5,), "at_least": 0.8}, "PASS", 0.8),
        ({"over": ("best",), "loads": (1.5,), "at_least": 0.9}, "MISS", 0.8),
        ({"over": ("fcfs", "oracle"), "loads": (1.5,), "at_least": 1.0}, "MISS", 0.8),
        ({"over": ("priority",), "own_knee": (1.0,), "at_least": 1.5}, "PASS", 2.0),
        ({"over": ("priority",), "own_knee": (1.0, 1.25), "at_least": 1.5}, "NOT MEASURED", 2.0),
        ({"over": ("priority",), "own_knee": (1.0, 1.25), "at_least": 2.5}, "MISS", 2.0),
        ({"loads": (2.0,), "at_least": 0.0}, "NOT MEASURED", None),
        ({"loads": (2.0, 1.5), "at_least": 5.0, "how": "any"}, "PASS", 6.0),
        ({"kind": "knee_shift", "at_least": 1.2}, "PASS", 1.5),
        ({"kind": "knee_shift", "at_least": 1.6}, "MISS", 1.5),
        ({"kind": "knee_shift", "over": ("oracle",), "at_least": 0.1}, "NOT MEASURED", None),
    ],
    ids=str,
)
def test_verdicts(bar: dict[str, Any], verdict: Verdict, closest: float | None) -> None:
    own_knees = {("steady", "priority"): Knee(1.2)}
    judged = judgement(toy(), toy_figures(), own_knees, Bar(name="b", **bar))
    assert judged.verdict == verdict
    if closest is None:
        assert judged.closest is None
    else:
        assert judged.closest is not None
        assert judged.closest.value == pytest.approx(closest, rel=0.01)


def test_the_worst_seed_is_named() -> None:
    bar = Bar(name="b", at_least=0.98, loads=(1.0,), seeds="worst")
    judged = judgement(toy(), toy_figures(), {}, bar)
    assert [(each.workload, each.over, each.at, each.seed) for each in judged.judged] == [
        ("steady", "fcfs", "1 K", 3)
    ]
