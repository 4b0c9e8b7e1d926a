"""A shim is started once per command: what it imports is time that an agent waits."""

import subprocess
import sys

import pytest

SLOW = {
    "argparse", "asyncio", "concurrent.futures", "dataclasses", "email", "http.client", "inspect", "logging",
    "msgspec", "multiprocessing", "shutil", "ssl", "subprocess", "tarfile", "tempfile", "threading",
    "urllib.request",
}  # fmt: skip
"""Modules of five milliseconds and more, and all that is not of the standard library."""


@pytest.mark.parametrize(
    "module",
    ["gwsh", "gw_docker", "leased_command", "remote_shell", "remote_run", "interactive", "docker_containers"],
)
def test_nothing_slow_is_imported(module: str) -> None:
    look = (
        f"import sys; old = set(sys.modules); import gateway.shims.{module}; print(*set(sys.modules) - old)"
    )
    answer = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    imported = set(answer.stdout.split())
    assert f"gateway.shims.{module}" in imported
    assert imported & SLOW == set()
    roots = {each.split(".")[0] for each in imported}
    assert roots - set(sys.stdlib_module_names) == {"gateway"}
