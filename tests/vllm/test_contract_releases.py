"""The contract against the real releases: they fit as they are, and a renamed hook is loud.

Needs the package index but for the installed release, and no running engine.
"""

import os
import shutil
from pathlib import Path

import httpx
import pytest

from backend_patch import contract
from backend_patch.contract import FILES, Support
from backend_patch.doctor import EXIT_FITS, EXIT_MISFIT, run
from tests.vllm.fetch_sources import INDEX_URL, fetch

pytestmark = pytest.mark.vllm

RELEASES = {
    "0.28.0": Support.BEST_EFFORT,
    "0.29.0": Support.BEST_EFFORT,
    "0.30.0": Support.BEST_EFFORT,
    "0.31.0": Support.SUPPORTED,
    "0.32.0": Support.SUPPORTED,
    "0.33.0": Support.SUPPORTED,
}


@pytest.fixture(scope="session")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each, with the files that the contract is about."""
    folder = tmp_path_factory.mktemp("releases")
    with httpx.Client(timeout=60.0, follow_redirects=True) as http:
        for version in RELEASES:
            fetch(http, os.environ.get("PIP_INDEX_URL", INDEX_URL), version, FILES, folder / version)
    return folder


@pytest.mark.parametrize(("version", "support"), RELEASES.items())
def test_releases_fit(releases: Path, version: str, support: Support) -> None:
    package = releases / version / "vllm"
    assert contract.version_of(package) == version
    assert contract.support_of(version) is support
    assert contract.missing(contract.check(package)) == ()


@pytest.mark.parametrize("version", [version for version in RELEASES if version >= "0.30"])
def test_nothing_optional_is_missing_since_030(releases: Path, version: str) -> None:
    assert [hook for hook in contract.check(releases / version / "vllm") if not hook.fits] == []


def test_installed_one_fits(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == EXIT_FITS
    assert "The patch fits." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("file", "was", "becomes", "hook"),
    [
        (contract.SCHEDULER, "def _free_blocks(", "def _release_blocks(", "Scheduler._free_blocks"),
        (contract.SCHEDULER, "self.running", "self.active", "Scheduler.running"),
        (contract.POOL, "def touch(self, blocks:", "def touch(self, tier, blocks:", "BlockPool.touch"),
        (contract.REQUEST, "self.block_hashes", "self.hashes", "Request.block_hashes"),
    ],
)
def test_renamed_hook_is_loud(
    releases: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    file: str,
    was: str,
    becomes: str,
    hook: str,
) -> None:
    """Of the newest release, as the next one may be."""
    shutil.copytree(releases / "0.33.0", tmp_path, dirs_exist_ok=True)
    path = tmp_path / "vllm" / file
    source = path.read_text(encoding="utf-8")
    assert was in source
    path.write_text(source.replace(was, becomes), encoding="utf-8")
    assert run(["--vllm", str(tmp_path)]) == EXIT_MISFIT
    assert f"THE PATCH DOES NOT FIT: {hook}\n" in capsys.readouterr().out
