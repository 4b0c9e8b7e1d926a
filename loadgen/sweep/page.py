"""``results.html``: plots and tables in one file, in the look of the report on runs. It needs no network and
has no script."""

from collections import Counter
from collections.abc import Sequence
from importlib.resources import files

from jinja2 import Environment, FunctionLoader, StrictUndefined

from loadgen.report import plots as report_plots
from loadgen.sweep import tables
from loadgen.sweep.bars import Judgement
from loadgen.sweep.figures import Figures
from loadgen.sweep.grid import Grid
from loadgen.sweep.plan import Plan
from loadgen.sweep.plots import drawn_policies, ident_of, workload_plots
from loadgen.sweep.run_info import RunInfo

TEMPLATE = "sweep.html.j2"


def results_page(
    grid: Grid, plan: Plan, figures: Figures, judgements: Sequence[Judgement], info: RunInfo
) -> str:
    environment = Environment(
        loader=FunctionLoader(resource),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(TEMPLATE).render(
        title=grid.title,
        headline=headline(judgements),
        origin=tables.origin(grid, info),
        reading_note=tables.READING_NOTE,
        knees_note=tables.KNEES_NOTE,
        caveats=tables.caveats(plan, figures, info),
        overview=tables.workloads_table(grid, plan),
        knees=tables.knees_table(grid, figures),
        bars=tables.bars_table(judgements) if judgements else None,
        bar_details=[tables.bar_table(judgement) for judgement in judgements],
        policies=drawn_policies(grid),
        colours=report_plots.TARGET_COLOURS,
        dash_array=lambda index: " ".join(map(str, report_plots.dash(index))),
        workloads=[
            {
                "ident": ident_of(workload, "section"),
                "name": workload.name,
                "about": workload.about,
                "plots": list(workload_plots(grid, figures, workload)),
                "tables": list(tables.workload_tables(grid, plan, figures, workload)),
            }
            for workload in grid.workloads
        ],
    )


def resource(name: str) -> str:
    """The page is the sweep's; its style sheet and its figures are the report's."""
    package = "loadgen.sweep" if name == TEMPLATE else "loadgen.report"
    return files(package).joinpath(name).read_text(encoding="utf-8")


def headline(judgements: Sequence[Judgement]) -> str:
    """How the bars came out, in one sentence."""
    if not judgements:
        return "This grid sets no bars: the figures are below."
    counts = Counter(judgement.verdict for judgement in judgements)
    said = f"{counts['PASS']} of {len(judgements)} bars are met"
    missed = [judgement.bar.name for judgement in judgements if judgement.verdict == "MISS"]
    if missed:
        said += f"; missed: {'; '.join(missed)}"
    unmeasured = counts["NOT MEASURED"]
    return said + (f"; {unmeasured} could not be judged, cells are missing." if unmeasured else ".")
