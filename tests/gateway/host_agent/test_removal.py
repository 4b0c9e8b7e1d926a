"""A tree goes whatever is in it, and nothing beside it does."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.host_agent import removal
from gateway.host_agent.turns import STEP_S


async def remove(path: Path, step_s: float = STEP_S) -> int:
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        return await removal.remove(directory, path.name, step_s)
    finally:
        os.close(directory)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def make_deep(top: Path, depth: int) -> None:
    """Deeper than we hold directories open."""
    fd = os.open(top, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(os.open("file", os.O_CREAT, dir_fd=fd))
    os.close(fd)


async def test_ordinary_tree(tmp_path: Path) -> None:
    """Links go, what they point to stays."""
    outside = tmp_path / "outside"
    (outside / "kept").mkdir(parents=True)
    tree = tmp_path / "tree"
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "a" / "link").symlink_to(outside)
    for n in range(removal.ENTRIES_AT_ONCE + 10):
        (tree / "a" / "b" / str(n)).touch()
    assert await remove(tree) == 0
    assert names(tmp_path) == ["outside"]
    assert (outside / "kept").exists()


async def test_one_file_or_link(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to("target")
    assert await remove(tmp_path / "link") == 0
    assert (tmp_path / "target").exists()
    with pytest.raises(FileNotFoundError):
        await remove(tmp_path / "link")


async def test_deeper_than_descriptors(tmp_path: Path, open_fds: Callable[[], int]) -> None:
    """500 directories in each other, as a runaway ``mkdir`` leaves them."""
    (tmp_path / "tree").mkdir()
    make_deep(tmp_path / "tree", 500)
    before = open_fds()
    assert await remove(tmp_path / "tree") == 0
    assert names(tmp_path) == []
    assert open_fds() == before


BECOME_NOBODY = """
os.chown(".", 65534, 65534)
os.setuid(65534)
"""
READ_ONLY = f"""
import asyncio, os, sys
from gateway.host_agent import removal
{BECOME_NOBODY}
os.makedirs("tree/a/b")
open("tree/a/b/file", "w").close()
for path, mode in (("tree/a/b", 0), ("tree/a", 0o500), ("tree", 0o555)):
    os.chmod(path, mode)
print(asyncio.run(removal.remove(os.open(".", os.O_RDONLY), "tree")), os.path.exists("tree"))
"""


def test_directories_without_permissions(tmp_path: Path) -> None:
    """To a user whom the kernel keeps to them."""
    code = READ_ONLY if os.geteuid() == 0 else READ_ONLY.replace(BECOME_NOBODY, "")
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(Path.cwd())},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "0 False\n", done.stderr


async def test_others_go_on_meanwhile(tmp_path: Path) -> None:
    """The loop turns while a big tree is removed."""
    tree = tmp_path / "tree"
    tree.mkdir()
    for n in range(20):
        (tree / str(n)).touch()
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while tree.exists():
            turns += 1
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        group.create_task(turn())
        await remove(tree, step_s=0)
    assert turns >= 20
