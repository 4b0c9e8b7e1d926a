"""Writes what a sweep found: ``results.md`` to read, ``results.json`` to compute with, ``results.html`` to
look at."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loadgen.sweep.bars import Judgement, judge
from loadgen.sweep.figures import Figures, collect
from loadgen.sweep.grid import Grid
from loadgen.sweep.markdown import results_markdown
from loadgen.sweep.metrics import METRICS
from loadgen.sweep.page import results_page
from loadgen.sweep.plan import Plan
from loadgen.sweep.run_info import RunInfo
from loadgen.sweep.sweep import Swept, encode

RESULT_FILES = ("results.md", "results.json", "results.html")


def write_results(grid: Grid, swept: Swept, info: RunInfo, out_dir: Path) -> list[Judgement]:
    plan, figures = swept.plan, collect(swept.plan.cells, swept.outcomes)
    judgements = judge(grid, figures, plan.own_knees)
    markdown, json, html = (out_dir / name for name in RESULT_FILES)
    markdown.write_text(results_markdown(grid, plan, figures, judgements, info), encoding="utf-8")
    json.write_bytes(encode(results_json(grid, plan, figures, judgements, info)))
    html.write_text(results_page(grid, plan, figures, judgements, info), encoding="utf-8")
    return judgements


def results_json(
    grid: Grid, plan: Plan, figures: Figures, judgements: Sequence[Judgement], info: RunInfo
) -> dict[str, Any]:
    """Every figure by seed; what the tables say of them follows from these."""
    return {
        "title": grid.title,
        "info": info,
        "grid": grid,
        "knees_per_s": plan.knees,
        "own_knees": [
            {"workload": workload, "policy": policy, "knee": knee}
            for (workload, policy), knee in plan.own_knees.items()
        ],
        "bars": judgements,
        "cells": [
            {
                "workload": workload,
                "policy": policy,
                "load": point.load,
                "agents": point.agents,
                "figures": {
                    metric.key: by_seed
                    for metric in METRICS
                    if (by_seed := figures.by_seed((workload, point, policy), metric))
                },
            }
            for workload, point, policy in figures.summaries
        ],
    }
