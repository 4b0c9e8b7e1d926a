"""What the OpenHands comparison makes of its runs; the runs themselves take an hour."""

import os
from typing import Any

from tests.bench import openhands_ab as ab

RUN: dict[str, Any] = {
    **dict.fromkeys(ab.METRICS, 1.0),
    "sessions": 4,
    "completed": 4,
    "preemptions": None,
}


def test_the_ratio_is_of_the_medians_over_the_repeats() -> None:
    stock = [{**RUN, "jct_mean_s": value} for value in (90.0, 100.0, 400.0)]
    mars = [{**RUN, "jct_mean_s": value} for value in (20.0, 50.0, 60.0)]
    result = ab.report({"stock": stock, "mars": mars}, ab.Shape())
    assert result["times_sooner"] == {"jct_mean_s": 2.0, "jct_p95_s": 1.0, "makespan_s": 1.0}
    text = ab.markdown(result)
    assert "task mean: 2.00 times sooner." in text
    assert "| mars | 3 | 12 of 12 | 50 |" in text
    assert text.splitlines()[4].endswith("| – |"), "what is not known is no number"


def test_one_system_alone_has_no_ratio() -> None:
    result = ab.report({"stock": [RUN], "mars": []}, ab.Shape())
    assert result["times_sooner"] == {}
    assert "sooner" not in ab.markdown(result)


def test_the_parts_of_the_cores_are_apart_where_there_are_two() -> None:
    before = os.sched_getaffinity(0)
    engine, others = ab.core_parts()
    assert engine | others == before
    assert not engine & others or len(before) == 1
    with ab.on_cores(engine):
        assert os.sched_getaffinity(0) == engine
    assert os.sched_getaffinity(0) == before


def test_both_systems_get_the_same_load() -> None:
    options = ab.parse(["--out", "x", "--agents", "30", "--speed", "4"])
    assert (options.agents, options.speed, options.systems) == (30, 4.0, "stock,mars")
    assert ab.Shape(agents=30).load(3)[4:8] == ["--seed", "3", "--sessions", "24"]


def test_the_shell_of_the_terminals_is_the_projects_own() -> None:
    assert ab.parse(["--out", "x"]).shell == ab.GWSH
    assert os.access(ab.GWSH, os.X_OK)
