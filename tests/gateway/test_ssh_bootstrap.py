"""The words that are said to a host's shell, said to shells of this machine."""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.agent_bundle import AgentBundle
from gateway.ssh_bootstrap import NO_PROGRAM, READY, Words, connect_words, install_words, trouble

pytestmark = pytest.mark.slow  # real processes throughout

PROGRAM = b"import sys; print(*sys.argv[1:]); print(sys.stdin.read())"
SHELLS = [shell for shell in ("sh", "bash", "dash", "zsh", "fish", "tcsh", "busybox") if shutil.which(shell)]


def say(words: Words, data: bytes = b"", shell: str = "sh") -> tuple[list[str], bytes]:
    """The answer, and what came after it."""
    call = [shell, "sh", "-c"] if shell == "busybox" else [shell, "-c"]
    done = subprocess.run([*call, words.command], input=data, capture_output=True, check=False, timeout=60)
    lines = done.stdout.splitlines(keepends=True)
    answers = [(n, answer) for n, line in enumerate(lines) if (answer := words.answer(line)) is not None]
    assert len(answers) == 1, done
    place, answer = answers[0]
    return answer, b"".join(lines[place + 1 :])


@pytest.fixture
def bundle() -> AgentBundle:
    return AgentBundle(PROGRAM, hashlib.sha256(PROGRAM).hexdigest())


@pytest.mark.parametrize("shell", SHELLS)
def test_installs_and_becomes_the_program(tmp_path: Path, bundle: AgentBundle, shell: str) -> None:
    """In whatever shell the user has, with a directory of any name."""
    directory = f'{tmp_path}/it\'s $HOME `x` "é" \\ ;'
    assert say(connect_words("python3", directory, bundle), shell=shell)[0] == [NO_PROGRAM]
    assert say(install_words("python3", directory, bundle), bundle.data, shell)[0] == [READY]
    answer, after = say(connect_words("python3", directory, bundle), b"frames", shell)
    assert answer == [READY]
    assert after == f"connect {directory}\nframes\n".encode()
    assert [path.name for path in Path(directory).iterdir()] == [bundle.file_name]


def test_program_that_arrives_damaged_is_not_installed(tmp_path: Path, bundle: AgentBundle) -> None:
    """The next connection sends it again."""
    answer, _ = say(install_words("python3", str(tmp_path), bundle), bundle.data[:-1])
    assert trouble(answer, "python3", "d") == "the agent's program arrived damaged"
    assert list(tmp_path.iterdir()) == []


def test_full_disk_is_told(tmp_path: Path, bundle: AgentBundle) -> None:
    """And leaves no half of a program."""
    limited = install_words("python3", str(tmp_path), bundle)
    words = Words(f"trap '' XFSZ; ulimit -f 0; {limited.command}", limited.mark)
    answer, _ = say(words, bundle.data)
    assert "could not be written into d: File too large" in trouble(answer, "python3", "d")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("directory", "expected"),
    [("/proc/none", "cannot be made"), ("{tmp}/file", "cannot be made: File exists")],
)
def test_directory_that_cannot_be(tmp_path: Path, bundle: AgentBundle, directory: str, expected: str) -> None:
    """With the host's reason."""
    (tmp_path / "file").write_text("")
    where = directory.format(tmp=tmp_path)
    answer, _ = say(connect_words("python3", where, bundle))
    assert expected in trouble(answer, "python3", where)


def test_python_that_is_not_there(tmp_path: Path, bundle: AgentBundle) -> None:
    """The setting is named."""
    answer, _ = say(connect_words("python4", str(tmp_path), bundle))
    assert "no 'python4' on its PATH" in trouble(answer, "python4", "d")


def test_mark_is_another_each_time(bundle: AgentBundle) -> None:
    """A greeting cannot know it."""
    one, other = (connect_words(sys.executable, "d", bundle) for _ in range(2))
    assert one.mark != other.mark
    assert one.answer(b"Welcome! mars- ready\n") is None
    assert one.answer(other.mark + b" ready\n") is None
    assert one.answer(one.mark + b" ready\n") == [READY]


@pytest.mark.parametrize("answer", [[], ["what"], ["no_python", "more"], ["old_python"]])
def test_answer_of_nonsense(answer: list[str]) -> None:
    """Is said to be one."""
    assert "makes no sense" in trouble(answer, "python3", "d")
