"""What the framework's process is started with."""

import subprocess
import sys
import zipfile
from pathlib import Path

from loadgen.agents.crew_process import NOT_INHERITED, START, bundle, environment


def test_the_bundle_runs_beside_no_other_package_of_ours(tmp_path: Path) -> None:
    """An unknown framework ends it after the modules were found, and before any of a framework's is."""
    bundle(tmp_path / "crew.zip")
    assert {name.split("/")[0] for name in zipfile.ZipFile(tmp_path / "crew.zip").namelist()} == {"loadgen"}
    command = [sys.executable, "-I", "-S", "-c", START, str(tmp_path / "crew.zip"), "absent"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "KeyError: 'absent'"


def test_our_own_paths_and_the_users_home_do_not_reach_it(tmp_path: Path) -> None:
    inherited = {"PATH": "/bin", "HOME": "/home/u", **dict.fromkeys(NOT_INHERITED, "/ours")}
    env = environment(inherited, tmp_path)
    assert env["PATH"].split(":")[-1] == "/bin"
    assert env["HOME"] == str(tmp_path)
    assert not set(NOT_INHERITED) & env.keys()
