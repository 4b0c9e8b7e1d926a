"""One environment for each framework, made from its lock file the first time it is asked for.

``frameworks/NAME/requirements.txt`` lists every distribution with its version (what ``uv pip freeze`` says);
its first line names the oldest Python that will do. ``package.json`` in its place is npm's, for packages that
depend on nothing but exact versions: npm (11.19) writes locks without other platforms' packages and then
refuses them. An environment is whole, or it is made again: its stamp is written last and holds the digest of
the lock.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

FRAMEWORKS = Path(__file__).parent / "frameworks"
ROOT_VARIABLE = "AGENT_ENVIRONMENTS"
DEFAULT_ROOT = Path(__file__).parents[2] / ".venv-agents"
UV = "uv==0.13.9"
"""Installs a framework in seconds where pip takes a minute."""
INSTALL_TIMEOUT_S = 300.0
OLDEST = re.compile(r"# python >= 3\.(\d+)\n")
ASK_VERSION = "import sys; print(*sys.version_info[:2])"


class EnvironmentFailed(Exception):
    """It could not be made; the message has what the installer said last."""


class Environments:
    def __init__(self, root: Path | None = None, frameworks: Path = FRAMEWORKS) -> None:
        self._root = root or Path(os.environ.get(ROOT_VARIABLE) or DEFAULT_ROOT)
        self._frameworks = frameworks

    def programs(self, name: str) -> Path:
        """The folder of the framework's programs, ``python`` among them if it is Python's.

        Raises:
            EnvironmentFailed: it could not be installed.
        """
        source, home = self._frameworks / name, self._root / name
        lock = source / "requirements.txt"
        is_python = lock.exists()
        if not is_python:
            lock = source / "package.json"
        programs = home / ("bin" if is_python else "node_modules/.bin")
        digest = hashlib.sha256(lock.read_bytes()).hexdigest()
        stamp = home / ".installed"
        if stamp.exists() and stamp.read_text() == digest:
            return programs
        shutil.rmtree(home, ignore_errors=True)
        self._root.mkdir(parents=True, exist_ok=True)
        if is_python:
            self._install_python(lock, home)
        else:
            _install_npm(lock, home)
        stamp.write_text(digest)
        return programs

    def _install_python(self, lock: Path, home: Path) -> None:
        uv = str(self._uv())
        found = OLDEST.match(lock.read_text("utf-8"))
        assert found is not None, f"{lock} does not begin with the oldest Python"
        _run([uv, "venv", "--quiet", "--python", _python(int(found[1])), str(home)])
        python = str(home / "bin" / "python")
        _run([uv, "pip", "install", "--quiet", "--no-deps", "--python", python, "-r", str(lock)])

    def _uv(self) -> Path:
        home = self._root / "uv"
        if not (home / "bin" / "uv").exists():
            _run([sys.executable, "-m", "venv", "--clear", str(home)])
            _run([str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", UV])
        return home / "bin" / "uv"


def _install_npm(lock: Path, home: Path) -> None:
    home.mkdir()
    shutil.copy(lock, home)
    _run(["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--prefix", str(home)])


def _python(oldest_minor: int) -> str:
    """An interpreter that is new enough: ours if it will do."""
    for each in _pythons():
        asked = subprocess.run([each, "-c", ASK_VERSION], check=False, capture_output=True, text=True)
        if asked.returncode == 0 and tuple(map(int, asked.stdout.split())) >= (3, oldest_minor):
            return each
    raise EnvironmentFailed(
        f"no Python of 3.{oldest_minor} or newer on the PATH or among pyenv's versions; install one"
    )


def _pythons() -> Iterator[str]:
    yield sys.executable
    names = ["python3", *(f"python3.{minor}" for minor in (12, 13, 14))]
    yield from (found for name in names if (found := shutil.which(name)))
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    yield from (str(each) for each in sorted(pyenv.glob("versions/3.1[2-9]*/bin/python3")))


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, env=_clean()
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise EnvironmentFailed(f"{command[0]}: {exc}") from exc
    if done.returncode != 0:
        said = (done.stdout + done.stderr)[-3000:]
        raise EnvironmentFailed(f"{' '.join(command)} ended with {done.returncode}:\n{said}")


def _clean() -> dict[str, str]:
    """Without what would put our own packages into theirs."""
    ours = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}
    return {name: value for name, value in os.environ.items() if name not in ours}
