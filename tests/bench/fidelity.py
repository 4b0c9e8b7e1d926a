"""How near the simulator's engine is to vLLM's own scheduler: the page docs/fidelity.md, from a sweep.

    PYTHONPATH=. python tests/bench/fidelity.py --out out/fidelity --page-file docs/fidelity.md

plays the packaged grid ``fidelity`` where vLLM is installed (an hour on two cores; goes on where it stopped)
and writes the table. Policies of the grid are pairs: one label, and the same "on vLLM".
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from cyclopts import App

from loadgen.sweep.command import sweep_command
from loadgen.sweep.grid_file import read_grid
from loadgen.sweep.outcomes import OUTCOMES_FILE, Outcome, read_outcomes

REAL = " on vLLM"
GRID = "fidelity"

JCT_WITHIN = 0.10
HITS_WITHIN = 0.03
PREEMPTIONS_WITHIN = 0.10
FEW_PREEMPTIONS = 5
"""Of a run of some thousand turns: of a count this small a tenth is less than one."""

Place = tuple[str, float, str]
"""Workload, multiple of the knee, policy."""

INTRODUCTION = """\
# Fidelity of the simulator

`loadgen simulate` plays a workload against a model of vLLM. With `--engine vllm` it plays the same workload
against vLLM's own scheduler and KV cache manager, in the same process and on the same virtual clock: every
step is decided by vLLM's code, with two steps in flight as its engine has them, and takes as long as the
step-time model says. Everything else is the same: sessions, tools, policy, telemetry. So what differs is the
model's doing.

Both were given the same sessions at the same instants. A figure is the mean of {seeds} seeds, "worst" the
seed that is farthest off; K is the rate at which stock's mean JCT doubles. The bars: mean JCT within
{jct:.0%}, hit ratio within {hits}, preemptions within {preemptions:.0%}, or {few} a run.
"""

DIFFERENCES = """
## Where they differ

- vLLM schedules a step while the one before it runs, so a turn that arrives meanwhile waits for one step
  more than in the model: some ten milliseconds of each time to first token, a tenth of it on an idle server.
- Leases with nothing held back (`mars_retention` beyond the knee): both thrash, and small differences grow.
  When both schedule without overlap and leases come with the turns, the model's steps are those of the
  patched scheduler one by one (`tests/vllm/test_patched_model.py`). What is left is the overlap, and hints,
  which the engine takes between two steps and the model at once; the share of each was not measured.
"""

ROWS = """
| load | system | mean JCT, s | worst | p99 JCT, s | mean TTFT, s | hit ratio | preemptions | |
| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |
"""


@dataclass(frozen=True, slots=True)
class Pair:
    """One policy at one load: the same seeds on the model and on vLLM."""

    place: Place
    model: Sequence[dict[str, Any]]
    real: Sequence[dict[str, Any]]

    def means(self, *keys: str) -> tuple[float, float]:
        return fmean(at(each, keys) for each in self.model), fmean(at(each, keys) for each in self.real)

    def ratio(self, *keys: str) -> float:
        model, real = self.means(*keys)
        return model / real

    @property
    def worst_jct(self) -> float:
        keys = ("jct_s", "mean")
        ratios = (at(m, keys) / at(r, keys) for m, r in zip(self.model, self.real, strict=True))
        return max(ratios, key=lambda ratio: max(ratio, 1 / ratio))

    @property
    def misses(self) -> list[str]:
        hits = self.means("prefix_hit_ratio")
        preemptions = self.means("preemptions")
        allowed = max(FEW_PREEMPTIONS, PREEMPTIONS_WITHIN * preemptions[1])
        missed = {
            "JCT": abs(self.ratio("jct_s", "mean") - 1) > JCT_WITHIN,
            "hits": abs(hits[0] - hits[1]) > HITS_WITHIN,
            "preemptions": abs(preemptions[0] - preemptions[1]) > allowed,
        }
        return [name for name, is_missed in missed.items() if is_missed]


def at(summary: dict[str, Any], keys: Sequence[str]) -> float:
    value: Any = summary
    for key in keys:
        value = value[key]
    return float(value)


def pairs(outcomes: Sequence[Outcome]) -> list[Pair]:
    """Of the seeds that both have."""
    found: dict[Place, dict[int, dict[str, Any]]] = {}
    for outcome in outcomes:
        cell = outcome.cell
        if outcome.summary is not None and cell.load is not None:
            found.setdefault((cell.workload, cell.load, cell.policy), {})[cell.seed] = outcome.summary
    paired = []
    for (workload, load, policy), model in found.items():
        real = found.get((workload, load, policy + REAL), {})
        if seeds := sorted(model.keys() & real.keys()):
            place = workload, load, policy
            paired.append(Pair(place, [model[seed] for seed in seeds], [real[seed] for seed in seeds]))
    return paired


def page(compared: Sequence[Pair], command: str) -> str:
    versions = sorted({summary["engine"] for pair in compared for summary in pair.real})
    commits = sorted(
        {summary["commit"][:8] for pair in compared for summary in pair.real if summary["commit"]}
    )
    parts = [
        INTRODUCTION.format(
            seeds=max(len(pair.real) for pair in compared),
            jct=JCT_WITHIN,
            hits=HITS_WITHIN,
            preemptions=PREEMPTIONS_WITHIN,
            few=FEW_PREEMPTIONS,
        )
    ]
    for workload in dict.fromkeys(pair.place[0] for pair in compared):
        rows = [row(pair) for pair in compared if pair.place[0] == workload]
        parts.append(f"\n## {workload}\n" + ROWS + "".join(rows))
    parts.append(DIFFERENCES)
    missed = sum(bool(pair.misses) for pair in compared)
    parts.append(
        f"\n{len(compared) - missed} of {len(compared)} rows are within all bars. "
        + ("The runs span more than one commit. " if len(commits) > 1 else "")
        + f"Engines: {'; '.join(versions)}. Commits: {', '.join(commits)}.\n"
        f"The same figures elsewhere: `{command}`.\n"
    )
    return "".join(parts)


def row(pair: Pair) -> str:
    _workload, load, policy = pair.place
    hits, preemptions = pair.means("prefix_hit_ratio"), pair.means("preemptions")
    seeds = f" ({len(pair.real)} seeds)" if len(pair.real) != len(read_grid(GRID).run.seeds) else ""
    cells = [
        f"{load:g} K",
        policy + seeds,
        both(pair, "jct_s", "mean"),
        f"{pair.worst_jct:.3f}",
        both(pair, "jct_s", "p99"),
        both(pair, "ttft_s", "mean", digits=2),
        f"{hits[0]:.3f} / {hits[1]:.3f}",
        f"{preemptions[0]:.0f} / {preemptions[1]:.0f}",
        "misses " + ", ".join(pair.misses) if pair.misses else "within",
    ]
    return "| " + " | ".join(cells) + " |\n"


def both(pair: Pair, *keys: str, digits: int = 0) -> str:
    model, real = pair.means(*keys)
    return f"{model:,.{digits}f} / {real:,.{digits}f} = {model / real:.3f}"


def in_grid_order(outcomes: dict[str, Outcome]) -> Iterator[Outcome]:
    order = [entry.title for entry in read_grid(GRID).run.policies]
    places = [workload.name for workload in read_grid(GRID).workloads]
    known = [each for each in outcomes.values() if each.cell.policy in order]
    yield from sorted(
        known,
        key=lambda each: (
            places.index(each.cell.workload),
            each.cell.load or 0.0,
            order.index(each.cell.policy),
            each.cell.seed,
        ),
    )  # fmt: skip


app = App(help=__doc__)


@app.default
def main(*, out: Path = Path("out/fidelity"), page_file: Path | None = None, table_only: bool = False) -> int:
    """Play what is missing of the grid, and write the page.

    Parameters
    ----------
    out
        Directory of the sweep.
    page_file
        Where the page goes. Default: to the terminal.
    table_only
        Play nothing.
    """
    if not table_only and (code := sweep_command(GRID, out=out)):
        return code
    compared = pairs(list(in_grid_order(read_outcomes(out / OUTCOMES_FILE))))
    text = page(compared, "PYTHONPATH=. python tests/bench/fidelity.py --page-file docs/fidelity.md")
    if page_file is None:
        print(text)  # noqa: T201 - a command
    else:
        page_file.write_text(text, encoding="utf-8")
    return 1 if any(pair.misses for pair in compared) else 0


if __name__ == "__main__":
    raise SystemExit(app())
