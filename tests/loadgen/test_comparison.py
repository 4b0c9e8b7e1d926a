import io
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from loadgen.comparison import METRICS, compare_runs, compare_summaries, figure
from loadgen.comparison_table import TERMINAL_METRICS, format_factor, format_value, render_table


def summary(jct_mean_s: float | None, **rest: Any) -> dict[str, Any]:
    return {
        "workload": "autonomous",
        "seed": 1,
        "sessions": 10,
        "completed": 10,
        "failed": 0,
        "jct_s": {"mean": jct_mean_s},
        "throughput_turns_per_s": None if jct_mean_s is None else 100 / jct_mean_s,
        **rest,
    }


def test_medians_ratios_and_single_values() -> None:
    found = compare_summaries(
        {"direct": [summary(60.0), summary(80.0), summary(70.0)], "mars": [summary(35.0)] * 3}
    )
    jct = found["metrics"]["jct_s.mean"]
    assert found["baseline"] == "direct"
    assert found["repeats"] == {"direct": 3, "mars": 3}
    assert jct["direct"]["values"] == [60.0, 80.0, 70.0]
    assert (jct["direct"]["median"], jct["direct"]["ratio"]) == (70.0, None)
    assert (jct["mars"]["median"], jct["mars"]["ratio"], jct["mars"]["times_better"]) == (35.0, 0.5, 2.0)
    rate = found["metrics"]["throughput_turns_per_s"]["mars"]
    assert rate["times_better"] == rate["ratio"] == pytest.approx(2.0)


def test_an_interval_needs_three_repeats_on_both_sides() -> None:
    three, two = [summary(60.0), summary(80.0), summary(70.0)], [summary(30.0), summary(40.0)]
    short = compare_summaries({"direct": three, "mars": two})["metrics"]["jct_s.mean"]["mars"]
    assert short["ratio_interval95"] is None
    long = compare_summaries({"direct": three, "mars": [*two, summary(35.0)]})["metrics"]["jct_s.mean"][
        "mars"
    ]
    low, high = long["ratio_interval95"]
    assert 30 / 80 <= low <= long["ratio"] <= high <= 40 / 60
    assert long["times_better_interval95"] == pytest.approx([1 / high, 1 / low])


values = st.lists(st.floats(min_value=0.01, max_value=1e6), min_size=3, max_size=6)


@given(values, values)
def test_the_interval_holds_the_ratio_and_stays_within_the_extremes(a: list[float], b: list[float]) -> None:
    groups = {"a": [summary(one) for one in a], "b": [summary(one) for one in b]}
    estimate = compare_summaries(groups)["metrics"]["jct_s.mean"]["b"]
    low, high = estimate["ratio_interval95"]
    slack = 1e-9
    assert min(b) / max(a) * (1 - slack) <= low <= high <= max(b) / min(a) * (1 + slack)
    assert low * (1 - slack) <= estimate["ratio"] <= high * (1 + slack)
    assert compare_summaries(groups)["metrics"]["jct_s.mean"]["b"] == estimate


def test_unknown_figures_give_no_ratio() -> None:
    found = compare_summaries({"direct": [summary(None)], "mars": [summary(30.0)]})["metrics"]["jct_s.mean"]
    assert found["direct"] == {
        "values": [None],
        "median": None,
        "ratio": None,
        "ratio_interval95": None,
        "times_better": None,
        "times_better_interval95": None,
    }
    assert (found["mars"]["median"], found["mars"]["ratio"]) == (30.0, None)


def test_figures_are_numbers_or_unknown() -> None:
    held = {"a": {"b": 2}, "text": "3", "flag": True}
    assert figure(held, "a.b") == 2
    assert [figure(held, key) for key in ("a", "a.c", "a.b.c", "text", "flag", "none")] == [None] * 6


def test_differences_that_spoil_a_comparison_are_named() -> None:
    caveats = " ".join(
        compare_summaries(
            {
                "direct": [summary(60.0)],
                "mars": [summary(30.0, seed=2, workload="interactive", completed=7, failed=3)],
            }
        )["caveats"]
    )
    assert "differ in workload: autonomous, interactive" in caveats
    assert "same seeds (direct: 1; mars: 2)" in caveats
    assert "3 of 10 sessions did not complete with mars" in caveats
    assert compare_summaries({"a": [summary(60.0)], "b": [summary(30.0)]})["caveats"] == []


@pytest.mark.parametrize("groups", [{}, {"direct": []}])
def test_a_comparison_of_nothing_is_refused(groups: dict[str, list[dict[str, Any]]]) -> None:
    with pytest.raises(ValueError, match="at least one run"):
        compare_summaries(groups)


def test_runs_are_compared_by_their_directories(tmp_path: Path) -> None:
    for name, mean in (("one", 60.0), ("two", 30.0)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "summary.json").write_bytes(msgspec.json.encode(summary(mean)))
    found = compare_runs({"direct": [tmp_path / "one"], "mars": [tmp_path / "two"]})
    assert found["metrics"]["jct_s.mean"]["mars"]["times_better"] == 2.0
    assert msgspec.json.decode(msgspec.json.encode(found)) == found


def test_the_table_shows_medians_single_values_and_factors() -> None:
    groups = {
        "direct": [summary(60.0), summary(80.0), summary(70.0)],
        "[red]mars": [summary(35.0), summary(35.0), summary(140.0, completed=9, failed=1)],
    }
    console = Console(file=io.StringIO(), width=160)
    console.print(render_table(compare_summaries(groups)))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "medians of 3 runs" in text
    assert "70.0 s (60.0 80.0 70.0)" in text
    assert "2.00× better [0.43 to 2.29]" in text
    assert "[red]mars" in text
    assert "1 of 30 sessions did not complete" in text


def test_every_row_of_the_table_is_a_metric() -> None:
    assert set(TERMINAL_METRICS) <= {metric.key for metric in METRICS}


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (None, "s", "–"),
        (0.0421, "s", "0.042 s"),
        (0.0, "s", "0 s"),
        (0.00421, "s", "0.0042 s"),
        (4.216, "s", "4.22 s"),
        (42.16, "s", "42.2 s"),
        (1421.6, "s", "1,422 s"),
        (0.9312, "ratio", "93.1 %"),
        (12, "count", "12"),
        (1234567, "count", "1,234,567"),
        (12.5, "count", "12.5"),
        (3.19, "1/s", "3.19 /s"),
    ],
)
def test_figures_print_three_digits_and_their_unit(value: float | None, unit: str, shown: str) -> None:
    assert format_value(value, unit) == shown


@pytest.mark.parametrize(
    ("factor", "shown"),
    [(None, ""), (1.42, "1.42× better"), (0.5, "2.00× worse"), (1.001, "same"), (26.4, "26× better")],
)
def test_worse_is_called_worse(factor: float | None, shown: str) -> None:
    assert format_factor(factor) == shown
