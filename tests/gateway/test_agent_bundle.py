"""The agent as one file: complete, alone, the same every time, and for Python 3.9."""

import ast
import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from gateway import agent_bundle
from gateway.agent_bundle import build_agent
from gateway.host_agent import wire

BUNDLE = build_agent()
SOURCES = {
    name: zipfile.ZipFile(io.BytesIO(BUNDLE.data)).read(name).decode()
    for name in zipfile.ZipFile(io.BytesIO(BUNDLE.data)).namelist()
}
every_source = pytest.mark.parametrize("name", sorted(SOURCES))

NEWER = {
    "TaskGroup", "timeout_at", "Runner", "Barrier", "BrokenBarrierError", "pairwise", "batched", "aclosing",
    "chdir", "stdlib_module_names", "orig_argv", "StrEnum", "ReprEnum", "EnumCheck", "file_digest",
    "bit_count", "ParamSpec", "TypeAlias", "TypeGuard", "Self", "assert_never", "assert_type", "Never",
    "LiteralString", "override", "reveal_type", "NoneType", "EllipsisType", "UnionType", "ExceptionGroup",
    "BaseExceptionGroup", "add_note", "anext", "aiter", "UTC", "is_junction", "process_cpu_count",
    "getencoding", "walk_up", "splice", "eventfd", "login_tty", "EventLoop", "QueueShutDown",
}  # fmt: skip
"""Names of the standard library that 3.10 and later brought. Found anywhere as attribute or import."""
NEWER_MODULES = {"tomllib", "string.templatelib", "compression", "annotationlib", "concurrent.interpreters"}
NEWER_ARGUMENTS = {("dataclass", "slots"), ("dataclass", "kw_only"), ("zip", "strict"), ("field", "kw_only")}


def test_same_sources_same_bytes(tmp_path: Path) -> None:
    """Whatever their times, modes and order on the disk; another source is another file."""
    for path in sorted(Path(agent_bundle.__file__).parent.joinpath("host_agent").glob("*.py"), reverse=True):
        (tmp_path / path.name).write_bytes(path.read_bytes())
        (tmp_path / path.name).chmod(0o600)
    assert build_agent(tmp_path) == build_agent() == BUNDLE
    (tmp_path / "wire.py").write_text("VERSION = 2\n")
    assert build_agent(tmp_path).digest != BUNDLE.digest
    assert BUNDLE.file_name == f"agent-{BUNDLE.digest}.pyz"


def test_it_runs_alone(tmp_path: Path) -> None:
    """Isolated from this checkout, in an empty directory; it knows its own digest."""
    (tmp_path / "agent.pyz").write_bytes(BUNDLE.data)
    command = [sys.executable, "-I", "agent.pyz", "version"]
    done = subprocess.run(command, cwd=tmp_path, env={}, capture_output=True, text=True)
    assert done.stderr == ""
    assert json.loads(done.stdout) == {"version": wire.VERSION, "agent": BUNDLE.digest}
    assert [path.name for path in tmp_path.iterdir()] == ["agent.pyz"]


def test_it_serves_alone(tmp_path: Path) -> None:
    """``connect`` starts it from the file."""
    (tmp_path / "agent.pyz").write_bytes(BUNDLE.data)
    hello = wire.encode({"id": 1, "op": wire.Op.HELLO, "versions": [wire.VERSION]})
    retire = wire.encode({"id": 2, "op": wire.Op.RETIRE, "end_running": True})
    command = [sys.executable, "-I", "agent.pyz", "connect", "dir"]
    env = {"PATH": os.environ["PATH"]}
    done = subprocess.run(
        command, cwd=tmp_path, env=env, input=hello + retire, capture_output=True, timeout=60
    )
    assert done.stderr == b""
    assert f'"agent":"{BUNDLE.digest}"'.encode() in done.stdout
    assert b'"did_retire":true' in done.stdout


def test_it_has_the_whole_agent_and_no_more() -> None:
    here = {path.name for path in Path(agent_bundle.__file__).parent.joinpath("host_agent").glob("*.py")}
    expected = {f"gateway/host_agent/{name}" for name in here} | {"gateway/__init__.py", "__main__.py"}
    assert set(SOURCES) == expected


@every_source
def test_it_imports_the_standard_library_and_itself(name: str) -> None:
    for module in imports(SOURCES[name]):
        if module.startswith("gateway."):
            path = module.replace(".", "/")
            assert f"{path}.py" in SOURCES or f"{path}/__init__.py" in SOURCES, module
        else:
            assert module.split(".")[0] in sys.stdlib_module_names, module
            assert module not in NEWER_MODULES


def imports(source: str) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "gateway.host_agent":
            found += [f"gateway.host_agent.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append(node.module or "")
    return found


@every_source
def test_it_is_python_3_9(name: str) -> None:
    tree = ast.parse(SOURCES[name], feature_version=(3, 9))
    assert newer_names(tree) == set()
    if name.startswith("gateway/host_agent/"):
        assert "from __future__ import annotations" in SOURCES[name] or not needs_annotations(tree)


def needs_annotations(tree: ast.AST) -> bool:
    return any(
        isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.AnnAssign)) for node in ast.walk(tree)
    )


def newer_names(tree: ast.AST) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            found.add("" if ast.unparse(node) == "os.chdir" else node.attr)  # contextlib's is newer.
        elif isinstance(node, ast.alias):
            found.add(node.name)
        elif isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func).split(".")[-1]
            found |= {f"{called}({k.arg}" for k in node.keywords if (called, k.arg) in NEWER_ARGUMENTS}
            found |= {"asyncio.timeout"} if ast.unparse(node.func) == "asyncio.timeout" else set()
    return {
        each for each in found if each in NEWER or "(" in each or ("." in each and each == "asyncio.timeout")
    }


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("asyncio.TaskGroup()", {"TaskGroup"}),
        ("from itertools import pairwise", {"pairwise"}),
        ("zip(a, b, strict=True)", {"zip(strict"}),
        ("@dataclasses.dataclass(slots=True)\nclass C: ...", {"dataclass(slots"}),
        ("async def f():\n    async with asyncio.timeout(1): ...", {"asyncio.timeout"}),
        ("call(timeout=1)", set()),
    ],
)
def test_newer_names_are_found(source: str, found: set[str]) -> None:
    """So that a rule that finds nothing does not pass for one that is kept."""
    assert newer_names(ast.parse(source)) == found
