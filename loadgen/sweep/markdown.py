"""``results.md``: the tables of ``loadgen.sweep.tables`` in Markdown."""

from collections.abc import Iterable, Iterator, Sequence

from loadgen.sweep import tables
from loadgen.sweep.bars import Judgement
from loadgen.sweep.figures import Figures
from loadgen.sweep.grid import Grid
from loadgen.sweep.plan import Plan
from loadgen.sweep.run_info import RunInfo
from loadgen.sweep.tables import TextTable


def results_markdown(
    grid: Grid, plan: Plan, figures: Figures, judgements: Sequence[Judgement], info: RunInfo
) -> str:
    parts = [f"# {grid.title}", *head(grid, plan, figures, info)]
    parts += ["## Knees", tables.KNEES_NOTE, table(tables.knees_table(grid, figures))]
    parts += bars(judgements)
    for workload in grid.workloads:
        parts.append(f"## {workload.name}" + (f": {workload.about}" if workload.about else ""))
        for one in tables.workload_tables(grid, plan, figures, workload):
            parts += [f"### {one.title}", table(one)]
    return "\n\n".join(parts) + "\n"


def head(grid: Grid, plan: Plan, figures: Figures, info: RunInfo) -> Iterator[str]:
    yield bullets(f"{name}: {value}" for name, value in tables.origin(grid, info))
    yield table(tables.workloads_table(grid, plan))
    yield tables.READING_NOTE
    if found := tables.caveats(plan, figures, info):
        yield "**Before you quote this**"
        yield bullets(found)


def bars(judgements: Sequence[Judgement]) -> Iterator[str]:
    if not judgements:
        return
    yield "## Bars"
    yield table(tables.bars_table(judgements))
    for judgement in judgements:
        details = table(tables.bar_table(judgement))
        yield f"<details><summary>{judgement.bar.name}</summary>\n\n{details}\n\n</details>"


def bullets(items: Iterable[str]) -> str:
    return "\n".join(f"- {one_line(item)}" for item in items)


def table(one: TextTable) -> str:
    rule = ["---", *(["---:"] * (len(one.columns) - 1))]
    return "\n".join(map(line, [one.columns, rule, *one.rows]))


def line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(one_line(cell).replace("|", "\\|") for cell in cells) + " |"


def one_line(text: str) -> str:
    """An error may have several lines, a table row only one."""
    return " ".join(text.split())
