"""The plots of a soak on one page that needs nothing else."""

from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files

from loadgen.report.plots import colour, over_time
from loadgen.report.svg import render
from tests.scale.samples import ALLOWED, Samples


def page(samples: Samples, faults: Mapping[str, int], violations: Sequence[str]) -> str:
    css = (files("loadgen.report") / "page.css").read_text()
    verdict = "every promise held" if not violations else f"{len(violations)} promises did not hold"
    struck = ", ".join(f"{name} {count} times" for name, count in sorted(faults.items())) or "no faults"
    figures = "".join(_figure(samples, kind, f"plot-{index}") for index, kind in enumerate(ALLOWED))
    wrong = "".join(f"<li>{escape(each)}</li>" for each in violations)
    return (
        "<!doctype html><html lang=en><head><meta charset=utf-8><title>Soak</title>"
        f"<style>{css}</style></head><body><h1>Soak: {verdict}</h1><p>{escape(struck)}</p>"
        f"<ul>{wrong}</ul>{figures}</body></html>\n"
    )


def _figure(samples: Samples, kind: str, ident: str) -> str:
    lines = samples.of_kind(kind)
    if not lines:
        return ""
    end_s = max(points[-1][0] for points in lines.values())
    spec = over_time(dict(enumerate(lines.values())), kind, end_s)
    words = f"{kind} of {', '.join(lines)} over {end_s:.0f} seconds"
    key = ", ".join(
        f'<span style="color:{colour(index)}">{escape(name)}</span>' for index, name in enumerate(lines)
    )
    return f"<section><h2>{escape(kind)}</h2>{render(spec, ident, kind, words)}<p>{key}</p></section>"
