import re
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest

from loadgen.comparison import METRICS, figure
from loadgen.comparison_table import UNKNOWN, format_value
from loadgen.records import SessionRecord
from loadgen.report import write_report
from loadgen.run_files import RunFilesError

# Each page is a dozen rendered plots.
pytestmark = pytest.mark.slow

WriteRun = Callable[..., Path]

VOID = {"meta", "link", "input", "br", "hr", "img"}
ATTACK = "</title><script>alert(1)</script><img src=x onerror=alert(2)>"


class Page(HTMLParser):
    """What a test asks of the HTML: its elements, whether they nest, and its text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.figures: list[tuple[str, float, str]] = []
        """Key, exact value and printed text of every figure in a table."""
        self.feed(self.source)
        self.close()
        assert self.open == [], "every element is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "style":
            return
        self.text.append(data)
        if self.open and self.open[-1] == "data":
            held = self.elements[-1][1]
            self.figures.append((held["data-key"] or "", float(held["value"] or "nan"), data))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.elements if name == tag]

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


def report_on(out: Path, *run_dirs: Path) -> Page:
    write_report(list(run_dirs), out)
    return Page(out)


def summary_of(run_dir: Path) -> dict[str, Any]:
    return msgspec.json.decode((run_dir / "summary.json").read_bytes(), type=dict[str, Any])


def test_a_single_run_shows_exactly_the_figures_of_its_summary(tmp_path: Path, write_run: WriteRun) -> None:
    run_dir = write_run(tmp_path / "direct", label="direct")
    page, summary = report_on(tmp_path / "report.html", run_dir), summary_of(run_dir)
    expected = {
        (metric.key, value, format_value(value, metric.unit))
        for metric in METRICS
        if (value := figure(summary, metric.key)) is not None
    }
    assert len(expected) > 25
    assert set(page.figures) == expected
    held = page.words.split("Held by the proxy, per turn")[1].split("Wait for a tool slot")[0].split()
    assert held == ["direct", *[UNKNOWN] * 4], "a target without a proxy has no held times, not times of 0"
    assert "nothing is known of the spread" in page.words


def test_two_targets_are_compared_in_words_and_in_json(tmp_path: Path, write_run: WriteRun) -> None:
    direct = write_run(tmp_path / "direct", label="direct", slowdown=2.0)
    mars = write_run(tmp_path / "mars", label="mars", is_proxy=True)
    page = report_on(tmp_path / "out" / "report.html", direct, mars)
    factor = summary_of(direct)["jct_s"]["mean"] / summary_of(mars)["jct_s"]["mean"]
    assert f"Sessions finished {factor:.2f} times faster with mars than with direct" in page.words
    assert "30 sessions of the workload autonomous on h100. One run of each target" in page.words
    assert "All 60 sessions completed." in page.words
    shown = {(key, value) for key, value, _ in page.figures}
    assert {(m.key, figure(summary_of(mars), m.key)) for m in METRICS if "jct" in m.key} <= shown
    comparison = msgspec.json.decode((tmp_path / "out" / "report.json").read_bytes())
    assert comparison["metrics"]["jct_s.mean"]["mars"]["times_better"] == pytest.approx(factor)


def test_three_repeats_show_medians_ranges_and_one_curve_each(tmp_path: Path, write_run: WriteRun) -> None:
    run_dirs = [write_run(tmp_path / f"mars-{seed}", label="mars", seed=seed) for seed in (1, 2, 3)]
    page = report_on(tmp_path / "report.html", *run_dirs)
    means = sorted(summary_of(run_dir)["jct_s"]["mean"] for run_dir in run_dirs)
    shown = [value for key, value, _ in page.figures if key == "jct_s.mean"]
    assert shown == [means[1]]
    assert "3 runs of each target; figures are medians" in page.words
    curves_of_jct = page.source.split('id="jct-title"')[1].split("</svg>")[0]
    assert curves_of_jct.count("target_0_line_marks") == 3
    assert [d.name for d in run_dirs if d.name in page.words] == ["mars-1", "mars-2", "mars-3"]


def test_nothing_a_run_says_becomes_markup(tmp_path: Path, write_run: WriteRun) -> None:
    hostile = write_run(
        tmp_path / "one",
        label=ATTACK,
        workload=ATTACK,
        flags={ATTACK: ATTACK},
        session_prefix=ATTACK,
        fail_share=0.5,
        sessions=6,
    )
    page = report_on(tmp_path / "report.html", hostile, write_run(tmp_path / "two", label="'\"><b>"))
    assert page.all("script") == []
    assert page.all("img") == []
    assert page.all("b") == []
    assert not any(name.startswith("on") for _, attrs in page.elements for name in attrs)
    assert ATTACK in page.words, "the text itself is shown"
    assert "503 no room for <this> & that" in page.words


def test_the_file_needs_nothing_but_itself(tmp_path: Path, write_run: WriteRun) -> None:
    page = report_on(tmp_path / "report.html", write_run(tmp_path / "run", is_proxy=True))
    for name in ("src", "srcset", "action", "xlink:href", "data"):
        assert not any(name in attrs for _, attrs in page.elements), name
    links = [attrs["href"] or "" for _, attrs in page.elements if "href" in attrs]
    assert all(link.startswith(("#", "data:,")) for link in links)
    assert "@import" not in page.source
    assert re.findall(r"url\((?!#)", page.source) == []
    policies = [meta["content"] for meta in page.all("meta") if "http-equiv" in meta]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]


def test_the_page_can_be_read_without_seeing_it(tmp_path: Path, write_run: WriteRun) -> None:
    runs = [write_run(tmp_path / name, label=name, is_proxy=name == "mars") for name in ("direct", "mars")]
    page = report_on(tmp_path / "report.html", *runs)
    ids = Counter(attrs["id"] for _, attrs in page.elements if "id" in attrs)
    assert max(ids.values()) == 1
    plots = [attrs for attrs in page.all("svg") if "aria-hidden" not in attrs]
    assert len(plots) == 12
    for plot in plots:
        assert plot["role"] == "img"
        assert {plot["aria-labelledby"], plot["aria-describedby"]} <= ids.keys()
    assert [len(page.all(landmark)) for landmark in ("header", "nav", "main", "h1")] == [1, 1, 1, 1]
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h\d", tag)]
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert all("scope" in heading for heading in page.all("th"))
    pointed_at = [link[1:] for link in (a["href"] or "" for a in page.all("a"))]
    assert set(pointed_at) <= ids.keys()


def test_a_run_of_failures_has_no_times_and_says_so(tmp_path: Path, write_run: WriteRun) -> None:
    page = report_on(tmp_path / "report.html", write_run(tmp_path / "run", fail_share=1.0, turns=1))
    assert "No session completed" in page.words
    assert "0 of 30 sessions completed, 30 failed" in page.words
    assert ("failed", 30.0, "30") in page.figures
    assert not [key for key, _, _ in page.figures if key.startswith(("jct_s", "ttft"))]
    assert page.words.count("Nothing was recorded to draw this from.") >= 4


def test_a_target_that_loses_sessions_is_named_in_the_headline(tmp_path: Path, write_run: WriteRun) -> None:
    direct = write_run(tmp_path / "direct", label="direct", slowdown=2.0)
    mars = write_run(tmp_path / "mars", label="mars", is_proxy=True, fail_share=0.5)
    lost = 30 - summary_of(mars)["completed"]
    page = report_on(tmp_path / "report.html", direct, mars)
    assert lost > 0
    assert f"Sessions that did not complete: {lost} with mars." in page.words
    assert f"direct: 30 of 30 sessions completed; mars: {30 - lost} of 30 sessions completed" in page.words
    assert f"{lost} of 30 sessions did not complete with mars" in page.words


def test_a_baseline_without_results_is_not_compared_to(tmp_path: Path, write_run: WriteRun) -> None:
    direct = write_run(tmp_path / "direct", label="direct", fail_share=1.0)
    page = report_on(tmp_path / "report.html", direct, write_run(tmp_path / "mars", label="mars"))
    assert "No session completed with direct, so there is nothing to compare" in page.words
    page = report_on(tmp_path / "report.html", tmp_path / "mars", direct)
    assert "No session completed with direct." in page.words


def test_an_empty_run_makes_a_report_too(tmp_path: Path, write_run: WriteRun) -> None:
    page = report_on(tmp_path / "report.html", write_run(tmp_path / "run", sessions=0))
    assert "No session completed" in page.words
    assert page.all("svg") == [attrs for attrs in page.all("svg") if "aria-hidden" in attrs]


def test_a_run_that_was_killed_makes_a_report_with_a_warning(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    line = msgspec.json.encode(SessionRecord("a", arrival_s=0.0, end_s=8.0)) + b"\n"
    (tmp_path / "run" / "sessions.jsonl").write_bytes(line + line[:20])
    page = report_on(tmp_path / "report.html", tmp_path / "run")
    assert "run: no turns.jsonl; 1 unreadable line in sessions.jsonl" in page.words
    assert "A session took 8.00 s on average with run." in page.words


def test_without_gauges_the_rest_is_drawn(tmp_path: Path, write_run: WriteRun) -> None:
    page = report_on(tmp_path / "report.html", write_run(tmp_path / "run", gauges=False))
    assert page.words.count("Nothing was recorded to draw this from.") == 4
    assert "Before you quote this" not in page.words
    assert 'id="jct-title"' in page.source
    assert 'id="kv-title"' not in page.source


def test_a_late_client_is_reported_as_one(tmp_path: Path, write_run: WriteRun) -> None:
    prompt = write_run(tmp_path / "run", label="direct")
    assert "That is small against the TTFTs measured." in report_on(tmp_path / "report.html", prompt).words
    summary = summary_of(prompt)
    summary["loop_lag_s"] |= {"p99": 0.5, "max": 2.0}
    (prompt / "summary.json").write_bytes(msgspec.json.encode(summary))
    words = report_on(tmp_path / "report.html", prompt).words
    assert "late by at most 2,000.0 ms, and by 500.0 ms at p99" in words
    assert "the client distorted what it measured" in words
    summary["loop_lag_s"] = {"p99": 0.0, "max": 0.0}
    (prompt / "summary.json").write_bytes(msgspec.json.encode(summary))
    assert (
        "no delay of the driver's event loop was recorded"
        in report_on(tmp_path / "report.html", prompt).words
    )


def test_settings_are_listed_per_target(tmp_path: Path, write_run: WriteRun) -> None:
    runs = [
        write_run(tmp_path / str(seed), label="mars", seed=seed, flags={"kv_tokens": 200_000, "slo": None})
        for seed in (1, 2)
    ]
    words = report_on(tmp_path / "report.html", *runs).words
    assert "seed 1, 2 " in words
    assert "flags.kv_tokens 200000" in words
    assert "policy not recorded" in words
    assert "commit 0123abc" in words


def test_a_report_needs_runs(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one run"):
        write_report([], tmp_path / "report.html")
    with pytest.raises(RunFilesError, match="no run here"):
        write_report([tmp_path], tmp_path / "report.html")


@pytest.mark.slow
def test_a_large_run_stays_a_small_file(tmp_path: Path, write_run: WriteRun) -> None:
    runs = [
        write_run(tmp_path / name, label=name, sessions=2_000, turns=25, gauges=False)
        for name in ("direct", "mars")
    ]
    page = report_on(tmp_path / "report.html", *runs)
    assert len(page.source.encode()) < 5_000_000
    assert "of 2000 sessions, spread evenly" in page.words


@pytest.mark.slow
def test_many_targets_share_the_room(tmp_path: Path, write_run: WriteRun) -> None:
    runs = [write_run(tmp_path / f"run-{number}", sessions=300, turns=10) for number in range(10)]
    page = report_on(tmp_path / "report.html", *runs)
    assert len(page.source.encode()) < 5_000_000
    assert len([key for key, _, _ in page.figures if key == "jct_s.mean"]) == len(runs)
    assert "10 targets compared" in page.words
