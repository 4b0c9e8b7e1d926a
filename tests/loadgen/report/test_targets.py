from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loadgen.report.targets import group_by_target
from loadgen.run_files import Run


def run(name: str, jct_mean_s: float | None = None, **summary: Any) -> Run:
    figures: Mapping[str, Any] = {"jct_s": {"mean": jct_mean_s}, **summary}
    return Run(Path("out") / name, dict(figures), [], [], [])


def names(*runs: Run) -> dict[str, list[str]]:
    return {target.name: [one.path.name for one in target.runs] for target in group_by_target(runs)}


def test_runs_of_one_label_are_repeats_in_order_of_their_first() -> None:
    alternating = [run("d1", label="direct", seed=1), run("m1", label="mars", seed=1)]
    alternating += [run("d2", label="direct", seed=2), run("m2", label="mars", seed=2)]
    assert names(*alternating) == {"direct": ["d1", "d2"], "mars": ["m1", "m2"]}


def test_runs_under_different_settings_are_not_repeats() -> None:
    slow, fast = run("slow", label="mars", rate=1.0), run("fast", label="mars", rate=4.0)
    assert names(slow, fast) == {"mars (slow)": ["slow"], "mars (fast)": ["fast"]}
    small, large = run("s", policy="mars", flags={"kv": 1}), run("l", policy="mars", flags={"kv": 2})
    assert names(small, large) == {"mars (s)": ["s"], "mars (l)": ["l"]}


def test_a_target_is_named_by_what_is_known_of_it() -> None:
    assert names(run("a", target="http://x", policy="mars"), run("b", policy="fcfs"), run("c")) == {
        "http://x · mars": ["a"],
        "fcfs": ["b"],
        "c": ["c"],
    }


def test_names_stay_unique() -> None:
    same_name = [run("run", label="mars", rate=1.0), run("run", label="mars", rate=2.0)]
    assert len(names(*same_name)) == 2


def test_the_typical_run_is_the_one_with_the_median_mean() -> None:
    runs = [run("slow", 9.0), run("failed"), run("middle", 5.0), run("quick", 1.0)]
    for one in runs:
        one.summary["label"] = "mars"
    (target,) = group_by_target(runs)
    assert target.typical_run.path.name == "middle"
    (alone,) = group_by_target(runs[1:2])
    assert alone.typical_run.path.name == "failed"
