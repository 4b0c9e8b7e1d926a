"""What the tables and the page say of the toy's figures."""

from collections.abc import Mapping
from html.parser import HTMLParser

import pytest

from loadgen.sweep.bars import judge
from loadgen.sweep.figures import Figures, collect
from loadgen.sweep.grid import Grid
from loadgen.sweep.grid_file import parse_grid
from loadgen.sweep.markdown import results_markdown
from loadgen.sweep.outcomes import Outcome
from loadgen.sweep.page import headline, results_page
from loadgen.sweep.plan import Plan, make_plan, pending
from loadgen.sweep.run_info import RunInfo
from loadgen.sweep.runner import Setting
from tests.loadgen.sweep.toy import TOY_GRID, toy_summary

INFO = RunInfo("loadgen sweep toy", None, "a machine", ["0123abc"], 60.0)

MARKUP = "<script>alert(1)</script>"


def ended(outcomes: Mapping[str, Outcome], grid: Grid) -> tuple[Plan, Figures]:
    known = dict(outcomes)
    while cells := pending(plan := make_plan(grid, known), known):
        known |= {cell.key: Outcome(cell.key, cell, toy_summary(cell.recipe, Setting())) for cell in cells}
    return plan, collect(plan.cells, known)


@pytest.fixture(scope="module")
def toy() -> tuple[Grid, Plan, Figures]:
    grid = parse_grid(TOY_GRID, "toy")
    return (grid, *ended({}, grid))


def markdown_of(toy: tuple[Grid, Plan, Figures], info: RunInfo = INFO) -> str:
    grid, plan, figures = toy
    return results_markdown(grid, plan, figures, judge(grid, figures, plan.own_knees), info)


def section(text: str, heading: str) -> list[str]:
    return text.partition(f"{heading}\n\n")[2].partition("\n\n")[0].splitlines()


def test_policies_are_rows_and_loads_are_columns(toy: tuple[Grid, Plan, Figures]) -> None:
    table = section(markdown_of(toy), "### mean JCT (s)")
    assert table[0] == "| policy | 0.25 K | 1 K | 1.5 K | N=2 | N=4 |"
    assert table[2] == "| fcfs | 102 | 204 | 459 | 102 | 102 |"
    assert [row.split("|")[1].strip() for row in table[2:]] == [
        "fcfs",
        "priority",
        "mars",
        "oracle",
        "mars, blind",
    ]


def test_ratios_name_their_worst_seed(toy: tuple[Grid, Plan, Figures]) -> None:
    table = section(markdown_of(toy), "### mean JCT: times better than fcfs (worst seed)")
    assert table[3].startswith("| mars | 1.00 (1.00, seed 1) | 2.00 (2.00, seed ")
    assert all(not row.startswith("| fcfs") for row in table)


def test_knees_shift(toy: tuple[Grid, Plan, Figures]) -> None:
    text = markdown_of(toy)
    table = text.partition("## Knees\n\n")[2].split("\n\n")[1].splitlines()
    assert table[2].startswith("| fcfs | 1.00 |")
    assert table[3].startswith("| priority | 1.20 |")
    assert table[4].startswith("| mars | ≥ 1.50 |")
    assert "| priority | 1.20 | 1.25 of it |" in text


def test_bars_show_what_decided(toy: tuple[Grid, Plan, Figures]) -> None:
    table = section(markdown_of(toy), "## Bars")
    assert table[2] == (
        "| PASS | twice as fast as stock past the knee | ≥ 2 | 4: steady at 1.5 K, over fcfs, seed 1 |"
    )
    assert table[3].startswith("| MISS | as fast as the oracle |")


def test_the_head_says_where_the_figures_are_from(toy: tuple[Grid, Plan, Figures]) -> None:
    text = markdown_of(toy)
    for words in (
        "0123abc",
        "a machine",
        "Seeds: 1, 2, 3",
        "qwen3-30b-a3b on h100",
        "admission.kv_target = 0.5",
    ):
        assert words in text
    assert "| steady | autonomous | 20 | 1,000 | 1 | unlimited | 0.05/s (stated) |" in text
    assert "Before you quote this" not in text


def test_what_speaks_against_the_figures_is_said_first(toy: tuple[Grid, Plan, Figures]) -> None:
    text = TOY_GRID.replace('source = "interactive"', 'source = "interactive"\ntraced = {}')
    grid = parse_grid(text, "toy")
    broken = make_plan(grid, {}).cells[0]
    plan, figures = ended({broken.key: Outcome(broken.key, broken, error="a | b\nc")}, grid)
    info = RunInfo("c", None, "m", ["one", "two"], 0.0)
    said = markdown_of((grid, plan, figures), info)
    assert "- No trace was at hand: a shipped profile stands in on searched." in said
    assert "- The results are from several versions of the code." in said
    assert "- steady, fcfs at 0.25 K, seed 1: a | b c" in said
    assert "interactive, in place of a trace" in said


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.names: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.ids += [value or "" for name, value in attrs if name == "id"]


@pytest.mark.slow
def test_the_page_is_whole_and_needs_nothing_from_elsewhere() -> None:
    grid = parse_grid(TOY_GRID.replace("A toy", MARKUP), "toy")
    plan, figures = ended({}, grid)
    page = results_page(grid, plan, figures, judge(grid, figures, plan.own_knees), INFO)
    tags = Tags()
    tags.feed(page)
    assert "script" not in tags.names
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page
    assert len(tags.ids) == len(set(tags.ids))
    assert tags.names.count("figure") == tags.names.count("svg") - page.count('class="key"') == 13
    assert "knee of fcfs: 1.00 K" in page
    assert "prefers-color-scheme: dark" in page


def test_the_headline_counts_bars(toy: tuple[Grid, Plan, Figures]) -> None:
    grid, plan, figures = toy
    assert headline(judge(grid, figures, plan.own_knees)) == (
        "1 of 2 bars are met; missed: as fast as the oracle."
    )
    assert headline([]) == "This grid sets no bars: the figures are below."
