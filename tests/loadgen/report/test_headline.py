from pathlib import Path
from typing import Any

import pytest

from loadgen.comparison import compare_summaries
from loadgen.report.headline import completion, default_title, headline, setting
from loadgen.report.targets import Target
from loadgen.run_files import Run


def targets(**means: list[float | None]) -> list[Target]:
    found = []
    for index, (name, values) in enumerate(means.items()):
        runs = [
            Run(Path(f"{name}-{number}"), summary(mean), [], [], []) for number, mean in enumerate(values)
        ]
        found.append(Target(name, index, runs))
    return found


def summary(jct_mean_s: float | None) -> dict[str, Any]:
    completed = 0 if jct_mean_s is None else 10
    return {
        "workload": "autonomous",
        "hardware": "h100",
        "sessions": 10,
        "completed": completed,
        "failed": 10 - completed,
        "jct_s": {"mean": jct_mean_s},
    }


def said_of(given: list[Target]) -> str:
    comparison = compare_summaries({t.name: [run.summary for run in t.runs] for t in given})
    return headline(given, comparison)


@pytest.mark.parametrize(
    ("means", "said"),
    [
        (
            {"direct": [60.0], "mars": [40.0]},
            (
                "Sessions finished 1.50 times faster with mars than with direct "
                "(40.0 s against 60.0 s on average)."
            ),
        ),
        (
            {"direct": [40.0], "mars": [60.0]},
            (
                "Sessions finished 1.50 times slower with mars than with direct "
                "(60.0 s against 40.0 s on average)."
            ),
        ),
        (
            {"direct": [40.0], "mars": [40.01]},
            "Sessions took as long with mars as with direct (40.0 s against 40.0 s on average).",
        ),
        (
            {"direct": [50.0, 60.0, 70.0], "mars": [49.0, 58.0, 71.0]},
            "Within the spread of the runs, mars and direct took as long (58.0 s against 60.0 s on average).",
        ),
        (
            {"direct": [60.0, 61.0, 62.0], "mars": [30.0, 30.5, 31.0]},
            (
                "Sessions finished 2.00 times faster with mars than with direct "
                "(30.5 s against 61.0 s on average)."
            ),
        ),
        (
            {"direct": [60.0], "mars": [None]},
            "No session completed with mars. Sessions that did not complete: 10 with mars.",
        ),
        (
            {"direct": [None], "mars": [60.0]},
            "No session completed with direct, so there is nothing to compare the others to.",
        ),
        ({"mars": [40.0, 50.0, 60.0]}, "A session took 50.0 s on average with mars (median of 3 runs)."),
        (
            {"a": [60.0], "b": [50.0], "c": [30.0], "d": [70.0]},
            (
                "Of 4 targets, c was the fastest. "
                "Sessions finished 2.00 times faster with c than with a (30.0 s against 60.0 s on average)."
            ),
        ),
        (
            {"a": [20.0], "b": [50.0], "c": [30.0], "d": [70.0]},
            "Of 4 targets, a finished sessions soonest (20.0 s on average).",
        ),
    ],
)
def test_the_headline_claims_what_the_runs_carry(means: dict[str, list[float | None]], said: str) -> None:
    assert said_of(targets(**means)) == said


def test_the_setting_says_how_often_and_on_what() -> None:
    once = setting(targets(direct=[60.0], mars=[40.0]))
    assert once == (
        "10 sessions of the workload autonomous on h100. "
        "One run of each target: nothing is known of the spread between runs."
    )
    assert "2 runs of each target; figures are medians" in setting(
        targets(direct=[1.0, 2.0], mars=[1.0, 2.0])
    )
    assert "(direct 1, mars 2)" in setting(targets(direct=[1.0], mars=[1.0, 2.0]))


def test_completion_goes_by_target_where_sessions_were_lost() -> None:
    assert completion(targets(direct=[60.0], mars=[40.0])) == "All 20 sessions completed."
    assert completion(targets(direct=[60.0], mars=[None])) == (
        "direct: 10 of 10 sessions completed; mars: 0 of 10 sessions completed, 10 failed. "
        "Times are of completed sessions and answered turns only."
    )


def test_titles_stay_short() -> None:
    assert default_title(targets(direct=[1.0], mars=[1.0])) == "mars against direct"
    assert default_title(targets(a=[1.0], b=[1.0], c=[1.0], d=[1.0])) == "4 targets compared"
