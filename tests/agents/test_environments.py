"""Environments of frameworks: made once, made again when their lock changes, never half made."""

import os
import stat
from pathlib import Path

import pytest

from tests.agents.environments import EnvironmentFailed, Environments

UV = """#!/bin/sh
echo "$@" >> {log}
[ "$1" = venv ] && for folder; do :; done && mkdir -p "$folder/bin"
grep -q broken "$8" /dev/null && echo "no such distribution" >&2 && exit 1
exit 0
"""
NPM = """#!/bin/sh
echo "$@" >> {log}
mkdir -p "$6/node_modules/.bin"
"""


def program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


class Rig:
    """Frameworks and installers of the test's own."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "log"
        self.frameworks = folder / "frameworks"
        self.root = folder / "environments"
        program(self.root / "uv" / "bin" / "uv", UV.format(log=self.log))
        self.environments = Environments(self.root, self.frameworks)

    def lock(self, name: str, text: str, file: str = "requirements.txt") -> None:
        path = self.frameworks / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    @property
    def installed(self) -> int:
        return self.log.read_text().split().count("install") if self.log.exists() else 0


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def test_made_once_and_again_when_the_lock_is_another_one(rig: Rig) -> None:
    rig.lock("one", "# python >= 3.10\na==1\n")
    programs = rig.environments.programs("one")
    assert programs == rig.root / "one" / "bin"
    (programs / "left").touch()
    assert rig.environments.programs("one") == programs
    assert rig.installed == 1
    rig.lock("one", "# python >= 3.10\na==2\n")
    rig.environments.programs("one")
    assert rig.installed == 2
    assert not (programs / "left").exists(), "from nothing"


def test_one_that_could_not_be_made_says_why_and_is_tried_again(rig: Rig) -> None:
    rig.lock("one", "# python >= 3.10\nbroken==1\n")
    for attempt in (1, 2):
        with pytest.raises(EnvironmentFailed, match="no such distribution"):
            rig.environments.programs("one")
        assert rig.installed == attempt


def test_a_python_that_nobody_has_is_named(rig: Rig) -> None:
    rig.lock("one", "# python >= 3.99\na==1\n")
    with pytest.raises(EnvironmentFailed, match=r"no Python of 3\.99 or newer"):
        rig.environments.programs("one")


def test_npm_installs_what_is_npms(rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path / "bin" / "npm", NPM.format(log=rig.log))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    rig.lock("two", "{}", "package.json")
    assert rig.environments.programs("two") == rig.root / "two" / "node_modules" / ".bin"
    assert rig.environments.programs("two").is_dir()
    assert rig.installed == 1
