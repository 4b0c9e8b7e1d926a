"""The rules of the layout, read from the source: who may import whom, and what the core must not touch.

Each rule is a function from a module's syntax tree to the offences in it, tried on a small offender
first, so that a rule that catches nothing does not pass for one that is kept.
"""

import ast
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("marsproxy", "gateway", "backend_patch", "loadgen")

MAY_IMPORT = {
    "marsproxy.core": ("marsproxy.core",),
    "marsproxy": ("marsproxy", "backend_patch.protocol"),
    "gateway.host_agent": ("gateway.host_agent",),
    "gateway.shims": ("gateway.shims", "gateway.tool_signature"),
    "gateway": ("gateway", "marsproxy.core"),
    "backend_patch": ("backend_patch",),
    "loadgen": (
        "loadgen",
        "marsproxy.core",
        "gateway.protocol",
        "backend_patch.step_time",
        "backend_patch.script",
        "backend_patch.virtual_engine",
    ),
}
"""Of our own packages. The longest name that fits a module is its rule."""

CORE_MAY_IMPORT = {
    "abc", "bisect", "collections", "dataclasses", "enum", "functools", "hashlib", "heapq", "itertools",
    "math", "operator", "shlex", "statistics", "types", "typing",
}  # fmt: skip
"""Modules without input, output, clock, chance or environment."""

CORE_MAY_NOT_CALL = {
    "open",
    "print",
    "input",
    "exec",
    "eval",
    "compile",
    "__import__",
    "breakpoint",
    "id",
    "hash",
}
"""Built-ins that do what the list above keeps out. ``id`` and ``hash`` differ from run to run."""

WITHOUT_OWN_TEST = {
    "backend_patch/emulator/__main__.py": "run as a command in tests/vllm/test_tiny_model.py",
    "backend_patch/emulator/make_model.py": "needs tokenizers: tests/vllm/test_tiny_model.py",
    "backend_patch/emulator/tiny_model.py": "needs tokenizers: tests/vllm/test_tiny_model.py",
    "backend_patch/emulator/vllm_emulated_platform.py": "needs vLLM: tests/vllm/test_emulator.py runs on it",
    "backend_patch/emulator/vllm_executor.py": "needs vLLM: tests/vllm/test_emulator.py runs on it",
    "backend_patch/emulator/vllm_host_tier.py": "needs vLLM: tests/vllm/test_emulator.py runs on it",
    "backend_patch/emulator/vllm_in_process.py": "needs vLLM: tests/vllm/test_virtual_clock.py builds it",
    "backend_patch/emulator/vllm_serve.py": "needs vLLM: tests/vllm/test_emulator.py starts it",
    "backend_patch/emulator/vllm_virtual.py": "needs vLLM: tests/vllm/test_virtual_clock.py drives it",
    "backend_patch/protocol.py": "names and fields; the endpoint's and the proxy's tests read and write them",
    "backend_patch/vllm_queue.py": "needs vLLM: tests/vllm/test_agent_queue.py tests it",
    "backend_patch/vllm_scheduler.py": "needs vLLM: tests/vllm/test_scheduler_patch.py drives it",
    "marsproxy/core/commands.py": "vocabulary without behaviour; the event log's tests build every type",
    "marsproxy/core/events.py": "vocabulary without behaviour; the event log's tests build every type",
    "marsproxy/core/evidence.py": "vocabulary without behaviour",
    "marsproxy/core/forecast.py": "a protocol without behaviour",
    "marsproxy/core/scheduling.py": "a protocol without behaviour",
    "loadgen/agents/crew/mini_swe_agent.py": "needs mini-swe-agent: tests/agents/test_load.py plays it",
    "loadgen/agents/crew/openhands_agent.py": "needs OpenHands: tests/agents/test_load.py plays it",
    "loadgen/engine/__main__.py": "run as a command in tests/loadgen/engine/test_command.py",
    "loadgen/engine/cli.py": "run as a command in tests/loadgen/engine/test_command.py",
    "loadgen/records.py": "fields of a file; the driver's tests write them, the report's read them",
    "loadgen/workload.py": "fields of a file; the readers' tests read them",
}
"""Source files that may lack a test file of their own, and why."""

SOURCES = sorted(
    path.relative_to(ROOT)
    for package in PACKAGES
    for path in (ROOT / package).rglob("*.py")
    if "__pycache__" not in path.parts
)

CORE = [source for source in SOURCES if source.parts[:2] == ("marsproxy", "core")]

every_source = pytest.mark.parametrize("source", SOURCES, ids=str)


def module_name(source: Path) -> str:
    parts = source.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def parse(source: Path) -> ast.Module:
    return ast.parse((ROOT / source).read_text(encoding="utf-8"), filename=str(source))


def imported(tree: ast.AST) -> Iterator[str]:
    """Full names of what is imported anywhere in the module, functions included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "absolute imports only"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def wrong_directions(name: str, tree: ast.AST) -> list[str]:
    rule = max((each for each in MAY_IMPORT if is_within(name, each)), key=len)
    ours = (each for each in imported(tree) if each.split(".")[0] in PACKAGES)
    return [each for each in ours if not any(is_within(each, allowed) for allowed in MAY_IMPORT[rule])]


def impurities(tree: ast.AST) -> list[str]:
    foreign = [
        each
        for each in imported(tree)
        if not is_within(each, "marsproxy.core") and each.split(".")[0] not in CORE_MAY_IMPORT
    ]
    calls = [
        node.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in CORE_MAY_NOT_CALL
    ]
    return foreign + calls


def loose_tasks(tree: ast.AST) -> list[str]:
    """Tasks that nobody owns: asyncio itself keeps only a weak reference to them."""
    loose = ("asyncio.create_task", "asyncio.ensure_future")
    attributes = (ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute))
    return [each for each in (*imported(tree), *attributes) if each in loose]


def vllm_imports(tree: ast.AST) -> list[str]:
    return [each for each in imported(tree) if is_within(each, "vllm")]


def test_there_are_sources() -> None:
    """An empty list would pass every rule."""
    assert {source.parts[0] for source in SOURCES} == set(PACKAGES)
    assert Path("marsproxy/core/events.py") in SOURCES


@pytest.mark.parametrize(
    ("rule", "offence", "found"),
    [
        (lambda tree: wrong_directions("loadgen.agent", tree), "import marsproxy.relay", ["marsproxy.relay"]),
        (lambda tree: wrong_directions("loadgen.agent", tree), "from marsproxy.core import policy", []),
        (lambda tree: wrong_directions("loadgen.x", tree), "from gateway.protocol import Exec", []),
        (lambda tree: wrong_directions("loadgen.x", tree), "import gateway.app", ["gateway.app"]),
        (
            lambda tree: wrong_directions("marsproxy.x", tree),
            "from loadgen import engine",
            ["loadgen.engine"],
        ),
        (lambda tree: wrong_directions("marsproxy.core.x", tree), "import marsproxy.sse", ["marsproxy.sse"]),
        (lambda tree: wrong_directions("gateway.x", tree), "import marsproxy.errors", ["marsproxy.errors"]),
        (lambda tree: wrong_directions("backend_patch.x", tree), "import marsproxy.core", ["marsproxy.core"]),
        (impurities, "import time", ["time"]),
        (impurities, "def f():\n    from random import choice", ["random.choice"]),
        (impurities, "import xxhash", ["xxhash"]),
        (impurities, "f = open('x')", ["open"]),
        (impurities, "import math\nfrom collections.abc import Mapping", []),
        (loose_tasks, "import asyncio\nasyncio.create_task(f())", ["asyncio.create_task"]),
        (loose_tasks, "from asyncio import ensure_future", ["asyncio.ensure_future"]),
        (loose_tasks, "tasks.create_task(f())", []),
        (vllm_imports, "def f():\n    import vllm.config", ["vllm.config"]),
    ],
)
def test_rules_catch(rule: Callable[[ast.AST], list[str]], offence: str, found: list[str]) -> None:
    """What each rule is about, and what it leaves alone."""
    assert rule(ast.parse(offence)) == found


@every_source
def test_imports_point_one_way(source: Path) -> None:
    """The arrows of the layout."""
    assert wrong_directions(module_name(source), parse(source)) == []


@every_source
def test_only_vllm_modules_import_vllm(source: Path) -> None:
    """Everything else runs where there is none."""
    if not (source.parts[0] == "backend_patch" and source.name.startswith("vllm_")):
        assert vllm_imports(parse(source)) == []


@every_source
def test_tasks_have_an_owner(source: Path) -> None:
    """A TaskGroup, or a TaskOwner."""
    assert loose_tasks(parse(source)) == []


@pytest.mark.parametrize(
    "source", [each for each in SOURCES if each.parts[:2] == ("marsproxy", "core")], ids=str
)
def test_core_is_pure(source: Path) -> None:
    """So one policy serves the proxy and the simulator, and a log replays to the same commands."""
    assert impurities(parse(source)) == []


@every_source
def test_modules_say_what_they_own(source: Path) -> None:
    """A docstring, unless the file is empty."""
    tree = parse(source)
    assert not tree.body or ast.get_docstring(tree)


@every_source
def test_sources_have_tests(source: Path) -> None:
    """The tests of its folder, or of the folder above, reach every source: ``a/b.py`` has
    ``tests/a/test_b.py``, or a test there imports it, by itself or through other sources of ``a``."""
    if source.name == "__init__.py" or source.as_posix() in WITHOUT_OWN_TEST:
        return
    assert any(source in reached_from_tests_of(folder) for folder in source.parents if folder.name)


@cache
def reached_from_tests_of(folder: Path) -> frozenset[Path]:
    """Sources in ``folder`` and below that its tests import, directly or through each other."""
    tests = sorted((ROOT / "tests" / folder).glob("*.py"))
    stems = {test.stem for test in tests}
    reached = {s for s in SOURCES if s.parent == folder and f"test_{s.stem.strip('_')}" in stems}
    modules = [*(test.relative_to(ROOT) for test in tests), *reached]
    names = {name for module in modules for name in imported(parse(module))}
    while names:
        found = {
            source
            for source in SOURCES
            if source.is_relative_to(folder)
            and source not in reached
            and any(is_within(name, module_name(source)) for name in names)
        }
        reached |= found
        names = {name for source in found for name in imported(parse(source))}
    return frozenset(reached)


def test_exceptions_are_about_files_that_exist() -> None:
    """A list of exceptions outlives its reasons otherwise."""
    assert [each for each in WITHOUT_OWN_TEST if not (ROOT / each).exists()] == []
