"""Writes the parts of these pages that the code decides: ``python docs/generate.py``, or ``make docs``.

A generated part stands between ``<!-- generated: NAME -->`` and ``<!-- end -->``; everything around it is
written by hand. ``tests/test_docs.py`` makes the same text and fails where a page says something else.
"""

import ast
import asyncio
import json
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from itertools import pairwise
from pathlib import Path

from docstring_parser import parse_from_object
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from gateway import config as gateway_config
from gateway.fleet import open_hosts
from gateway.gateway import open_gateway
from gateway.hosts_file import local_host
from gateway.limits import Limits
from gateway.tenants import Tenants
from marsproxy.config import Config, live_policies
from marsproxy.config_toml import to_toml
from marsproxy.core.policies import POLICIES
from marsproxy.core.settings import AdmissionSettings, Parts, SessionSettings
from marsproxy.metrics import Metrics

PAGES = Path(__file__).parent
CORE = PAGES.parent / "marsproxy/core"
GENERATED = re.compile(r"(<!-- generated: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
UNLABELLED = ("le", "quantile")
"""Labels that the format adds."""
FROM_THE_LIBRARY = ("process_", "python_")


def proxy_settings() -> str:
    return f"```toml\n{to_toml(Config())}```\n"


def policies() -> str:
    rows = ((f"`{name}`", kind.about, kind.engine_order, _live(name)) for name, kind in POLICIES.items())
    return _table(("policy", "what", "vLLM's `--scheduling-policy`", "live"), rows)


def _live(name: str) -> str:
    if name in live_policies():
        return "yes"
    return "with the backend patch" if name in live_policies(has_patch=True) else "no"


def gateway_settings() -> str:
    rows = [*_settings_of(gateway_config.Config, but="limits"), *_settings_of(Limits)]
    return _table(("setting", "default", "what"), rows)


def policy_settings() -> str:
    sections = {"admission.": AdmissionSettings, "sessions.": SessionSettings, "parts.": Parts}
    rows = (row for prefix, section in sections.items() for row in _settings_of(section, prefix=prefix))
    return _table(("setting", "default", "what, and where it is from"), rows)


def policy_constants() -> str:
    rows = (
        (module, f"`{name}`", f"`{value}`", text)
        for module in sorted(policy_modules())
        for name, value, text in constants_of((CORE / f"{module}.py").read_text("utf-8"))
    )
    return _table(("module", "constant", "value", "what, and where it is from"), rows)


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
    "policy-settings": policy_settings,
    "policy-constants": policy_constants,
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
        here = open_hosts([local_host()], Limits(), directory=Path(directory), is_private=True, environ={})
        async with (
            here as hosts,
            open_gateway(Limits(), Tenants({}), hosts=hosts, proxy_url=proxy_url, start_wait_s=0) as gateway,
        ):
            return gateway.metrics.exposition().decode()


def policy_modules(start: str = "policy") -> set[str]:
    """Modules of the core that the policy is made of: all that it imports, and what they import."""
    found: set[str] = set()
    waiting = [start]
    while waiting:
        module = waiting.pop()
        if module not in found:
            found.add(module)
            waiting += re.findall(
                r"^from marsproxy\.core\.(\w+) import", (CORE / f"{module}.py").read_text("utf-8"), re.M
            )
    return found


def constants_of(source: str) -> Iterator[tuple[str, str, str]]:
    """Name, value and docstring of each constant at the top of a module; "" without a docstring."""
    for statement, after in pairwise([*ast.parse(source).body, ast.Pass()]):
        match statement:
            case ast.Assign(targets=[target], value=value) if ast.unparse(target).isupper():
                name, text = ast.unparse(target).strip("()"), ast.get_source_segment(source, value) or ""
                yield name, " ".join(text.split()), _in_markdown(_docstring(after))


def _docstring(statement: ast.stmt) -> str:
    match statement:
        case ast.Expr(value=ast.Constant(value=str(text))):
            return text
    return ""


def _in_markdown(docstring: str) -> str:
    return " ".join(docstring.replace("``", "`").split())


def _settings_of(section: type, but: str = "", prefix: str = "") -> Iterator[tuple[str, ...]]:
    docs = {each.arg_name: each.description or "" for each in parse_from_object(section).params}
    for field in fields(section):
        if field.name != but:
            yield f"`{prefix}{field.name}`", _default(field.default), _in_markdown(docs[field.name])


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
