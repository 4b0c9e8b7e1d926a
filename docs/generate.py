"""Writes the parts of these pages that the code decides: ``python docs/generate.py``, or ``make docs``.

A generated part stands between ``<!-- generated: NAME -->`` and ``<!-- end -->``; everything around it is
written by hand. ``tests/test_docs.py`` makes the same text and fails where a page says something else.
"""

import asyncio
import json
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from pathlib import Path

from docstring_parser import parse_from_object
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from gateway import config as gateway_config
from gateway.gateway import open_gateway
from gateway.limits import Limits
from gateway.tenants import Tenants
from marsproxy.config import Config, live_policies
from marsproxy.config_toml import to_toml
from marsproxy.core.policies import POLICIES
from marsproxy.metrics import Metrics

PAGES = Path(__file__).parent
GENERATED = re.compile(r"(<!-- generated: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
UNLABELLED = ("le", "quantile")
"""Labels that the format adds."""
FROM_THE_LIBRARY = ("process_", "python_")


def proxy_settings() -> str:
    return f"```toml\n{to_toml(Config())}```\n"


def policies() -> str:
    rows = (
        (f"`{name}`", kind.about, kind.engine_order, "yes" if name in live_policies() else "needs hints")
        for name, kind in POLICIES.items()
    )
    return _table(("policy", "what", "vLLM's `--scheduling-policy`", "live"), rows)


def gateway_settings() -> str:
    rows = [*_settings_of(gateway_config.Config, but="limits"), *_settings_of(Limits)]
    return _table(("setting", "default", "what"), rows)


def proxy_metrics() -> str:
    metrics = Metrics(CollectorRegistry())
    metrics.decided("new")
    metrics.set_sessions({"generating": 1})
    metrics.backend("http://127.0.0.1:8000").failed("backend_unreachable")
    metrics.watch_event_log(NoLines())
    return _metrics_table(metrics.render()[1].decode())


def gateway_metrics() -> str:
    return _metrics_table(asyncio.run(_gateway_page()))


PARTS: dict[str, Callable[[], str]] = {
    "proxy-settings": proxy_settings,
    "policies": policies,
    "gateway-settings": gateway_settings,
    "proxy-metrics": proxy_metrics,
    "gateway-metrics": gateway_metrics,
}


def generated(page: str) -> str:
    """The page with all of its generated parts made anew."""
    return GENERATED.sub(lambda found: found[1] + PARTS[found[2]]() + found[3], page)


class NoLines:
    """An event log that has written nothing."""

    lines_written = 0
    lines_dropped = 0


async def _gateway_page() -> str:
    with tempfile.TemporaryDirectory() as directory:
        # A gateway that is closed at once tells no proxy anything; it only has the metrics of telling.
        proxy_url = "http://127.0.0.1:9"
        async with open_gateway(
            Limits(), Tenants({}), directory=Path(directory), proxy_url=proxy_url
        ) as gateway:
            return gateway.metrics.exposition().decode()


def _settings_of(section: type, but: str = "") -> Iterator[tuple[str, ...]]:
    docs = {each.arg_name: each.description or "" for each in parse_from_object(section).params}
    for field in fields(section):
        if field.name != but:
            yield f"`{field.name}`", _default(field.default), " ".join(docs[field.name].split())


def _default(value: object) -> str:
    """Nothing for one that is unset or made anew: the text beside it says what happens then."""
    return f"`{json.dumps(value)}`" if isinstance(value, str | int | float) else ""


def _metrics_table(page: str) -> str:
    families = [
        family
        for family in text_string_to_metric_families(page)
        if not family.name.startswith(FROM_THE_LIBRARY) and not family.name.endswith("_created")
    ]
    return _table(
        ("metric", "type", "labels", "what"),
        ((f"`{_name(each)}`", each.type, _labels(each), each.documentation) for each in families),
    )


def _name(family: Metric) -> str:
    """As it is asked for: counters have their ending."""
    return f"{family.name}_total" if family.type == "counter" else family.name


def _labels(family: Metric) -> str:
    names = {name: None for sample in family.samples for name in sample.labels if name not in UNLABELLED}
    return ", ".join(f"`{name}`" for name in names)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def main() -> int:
    for path in sorted(PAGES.glob("*.md")):
        page = path.read_text("utf-8")
        path.write_text(generated(page), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
