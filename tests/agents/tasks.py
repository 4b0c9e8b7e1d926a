"""The task that every framework gets: a small git repository whose check fails, and the way to mend it.

Each task has a number of its own in its name, its code, its commands and its end state, so agents that are
taken for one another leave repositories that are wrong. Knows neither frameworks nor servers.
"""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

CODE = '''\
def total(net):
    """With the surcharge."""
    return net - {number}
'''
CHECK = """\
import sys

from prices import total

sys.dont_write_bytecode = True
found = total(1000)
print("check {name}:", "passed" if found == 1000 + {number} else "failed: " + str(found))
sys.exit(found != 1000 + {number})
"""
GIT = ("git", "-c", "user.name=tests", "-c", "user.email=tests@localhost", "-c", "commit.gpgsign=false")


@dataclass(frozen=True)
class Task:
    name: str
    number: int
    repository: Path

    @property
    def marker(self) -> str:
        """In its prompt, and in that of no other task: no marker is the beginning of another."""
        return f"[task {self.name}]"

    @property
    def prompt(self) -> str:
        return f"{self.marker} check.py in {self.repository} fails. Mend prices.py so that it passes."

    @property
    def old(self) -> str:
        return f"net - {self.number}"

    @property
    def new(self) -> str:
        return f"net + {self.number}"

    @property
    def look(self) -> str:
        return self._here("ls && cat prices.py")

    @property
    def check(self) -> str:
        return self._here("python3 -B check.py")

    @property
    def edit(self) -> str:
        return self._here(f"sed -i 's/{self.old}/{self.new}/' prices.py && git diff --stat")

    @property
    def commands(self) -> Sequence[str]:
        """Look, see it fail, mend it, see it pass."""
        return (self.look, self.check, self.edit, self.check)

    def faults(self) -> list[str]:
        """What is wrong with the repository, now that the agent is done. Empty: it is as it should be."""
        change = _git(self.repository, "diff", "--unified=0").splitlines()
        lines = [line for line in change if line[:1] in "+-" and line[:3] not in ("+++", "---")]
        found = []
        if lines != [f"-    return {self.old}", f"+    return {self.new}"]:
            found.append(f"{self.name}: changed {lines}")
        if (status := _git(self.repository, "status", "--porcelain").split()) != ["M", "prices.py"]:
            found.append(f"{self.name}: git status is {status}")
        checked = subprocess.run(
            ["python3", "-B", "check.py"], cwd=self.repository, check=False, capture_output=True, text=True
        )
        if checked.returncode != 0:
            found.append(f"{self.name}: {checked.stdout}{checked.stderr}")
        return found

    def _here(self, command: str) -> str:
        return f"cd {self.repository} && {command}"


def make_tasks(folder: Path, name: str, count: int) -> list[Task]:
    """``count`` repositories, below ``folder``. ``name`` tells them from those of other tests."""
    return [_make(folder / f"{name}-{n}", f"{name}-{n}", 100 + n) for n in range(1, count + 1)]


def _make(repository: Path, name: str, number: int) -> Task:
    repository.mkdir(parents=True)
    task = Task(name, number, repository)
    (repository / "prices.py").write_text(CODE.format(number=number))
    (repository / "check.py").write_text(CHECK.format(name=name, number=number))
    _git(repository, "init", "--quiet")
    _git(repository, "add", ".")
    _git(repository, "commit", "--quiet", "-m", "Prices")
    return task


def reset(tasks: Sequence[Task]) -> None:
    """Back to the failing check, for another run of the same task."""
    for task in tasks:
        _git(task.repository, "checkout", "--quiet", ".")
        _git(task.repository, "clean", "--quiet", "--force", "-d")


def _git(repository: Path, *arguments: str) -> str:
    done = subprocess.run([*GIT, *arguments], cwd=repository, check=True, capture_output=True, text=True)
    return done.stdout
