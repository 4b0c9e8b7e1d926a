"""One gateway with room for three commands, for all tests of the shims, and the shims as programs."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway.shims.shim import SLOTS, Shims
from tests.gateway_live.gateway_process import ROOT
from tests.gateway_live.world import World, open_world

STUB = """#!{python}
import sys
sys.path.insert(0, {root!r})
from gateway.shims.{module} import main
main()
"""
"""As an installation makes them."""


@pytest.fixture(scope="session")
def world() -> Iterator[World]:
    with open_world("local", "--allow-absolute-cwd", slots=SLOTS) as opened:
        yield opened
        assert opened.orphans() == []


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory with ``gwsh`` and ``gw-docker``."""
    directory = tmp_path_factory.mktemp("bin")
    for name, module in (("gwsh", "gwsh"), ("gw-docker", "gw_docker")):
        path = directory / name
        path.write_text(STUB.format(python=sys.executable, root=str(ROOT), module=module))
        path.chmod(0o755)
    return directory


@pytest.fixture
def shims(world: World, programs: Path, tmp_path: Path) -> Shims:
    return Shims(programs, world.gateway.url, tmp_path)
