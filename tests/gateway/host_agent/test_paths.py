"""No path leads out of its root, whatever links lie in the way or appear there."""

import errno
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.host_agent.operations import Refused
from gateway.host_agent.paths import MAX_DEPTH, MAX_LINKS, Root, open_regular, refusing_errors
from gateway.host_agent.wire import Fault


@pytest.fixture
def top(tmp_path: Path) -> Path:
    top = tmp_path / "top"
    (top / "a" / "b").mkdir(parents=True)
    (top / "a" / "file").write_text("inside")
    (tmp_path / "secret").write_text("outside")
    return top


@pytest.fixture
def root(top: Path) -> Iterator[Root]:
    with Root.open(top) as root:
        yield root


def text_at(root: Root, path: str) -> str:
    with refusing_errors(), root.place(path) as place, os.fdopen(open_regular(place)) as file:
        return file.read()


def fault_at(root: Root, path: str) -> str:
    with pytest.raises(Refused) as caught:
        text_at(root, path)
    return caught.value.fault


@pytest.mark.parametrize("path", ["a/file", "./a//file", "a/b/../file", "a/../a/file", "a/b/../../a/file"])
def test_ordinary_paths(root: Root, path: str) -> None:
    assert text_at(root, path) == "inside"


def test_absolute_paths_into_the_root(root: Root, top: Path) -> None:
    """As commands print them; those of a sibling with the same beginning are others."""
    assert text_at(root, str(top / "a/file")) == "inside"
    (top.parent / "top2").mkdir()
    (top.parent / "top2" / "file").write_text("outside")
    assert fault_at(root, str(top.parent / "top2/file")) == Fault.OUTSIDE


@pytest.mark.parametrize("path", ["../secret", "a/../../secret", "/etc/passwd", "a/b/../../../top/a/file"])
def test_paths_that_leave(root: Root, path: str) -> None:
    assert fault_at(root, path) == Fault.OUTSIDE


@pytest.mark.parametrize("target", ["file", "../a/file", "b/../file", "{top}/a/file"])
def test_links_inside_are_followed(root: Root, top: Path, target: str) -> None:
    (top / "a" / "link").symlink_to(target.format(top=top))
    assert text_at(root, "a/link") == "inside"


@pytest.mark.parametrize(
    "target", ["../../secret", "/etc/passwd", "{top}/../secret", "/proc/self/root/etc/passwd"]
)
def test_links_out_are_refused(root: Root, top: Path, target: str) -> None:
    (top / "a" / "link").symlink_to(target.format(top=top))
    assert fault_at(root, "a/link") == Fault.OUTSIDE


def test_directory_that_is_a_link_out(root: Root, top: Path) -> None:
    (top / "out").symlink_to("..")
    assert fault_at(root, "out/secret") == Fault.OUTSIDE


def test_links_in_a_circle_end(root: Root, top: Path) -> None:
    (top / "one").symlink_to("two")
    (top / "two").symlink_to("one")
    assert fault_at(root, "one") == Fault.BAD_REQUEST
    for n in range(MAX_LINKS):
        (top / f"l{n}").symlink_to(f"l{n + 1}")
    (top / f"l{MAX_LINKS}").symlink_to("a/file")
    assert text_at(root, "l1") == "inside"
    assert fault_at(root, "l0") == Fault.BAD_REQUEST


def test_what_is_no_file(root: Root, top: Path) -> None:
    """A FIFO is not waited for."""
    os.mkfifo(top / "fifo")
    assert fault_at(root, "fifo") == Fault.BAD_REQUEST
    assert fault_at(root, "a") == Fault.BAD_REQUEST
    assert fault_at(root, "") == Fault.BAD_REQUEST
    assert fault_at(root, "a/none") == Fault.NOT_FOUND
    assert fault_at(root, "a/file/x") == Fault.NOT_FOUND
    assert fault_at(root, "a\0b") == Fault.BAD_REQUEST
    assert fault_at(root, "\ud800") == Fault.BAD_REQUEST
    assert fault_at(root, "n" * 300) == Fault.BAD_REQUEST
    assert fault_at(root, "d/" * 3) == Fault.NOT_FOUND


def test_depth_is_bounded(root: Root, top: Path) -> None:
    with pytest.raises(Refused) as caught, root.place("d/" * (MAX_DEPTH + 2), makes_parents=True):
        pass
    assert caught.value.fault == Fault.BAD_REQUEST


def test_parents_are_made_inside_only(root: Root, top: Path) -> None:
    with root.place("new/er/file", makes_parents=True) as place:
        assert place.stat() is None
    assert (top / "new" / "er").is_dir()
    (top / "out").symlink_to("..")
    with pytest.raises(Refused), root.place("out/new/file", makes_parents=True):
        pass
    assert not (top.parent / "new").exists()


def test_nothing_stays_open(root: Root, top: Path, open_fds: Callable[[], int]) -> None:
    before = open_fds()
    (top / "link").symlink_to("a/b/../../../secret")
    for path in ("a/file", "link", "a/none", "/etc/passwd", "a/b", "../x"):
        with pytest.raises(Refused) if path != "a/file" else refusing_errors():
            text_at(root, path)
    assert open_fds() == before


def test_a_link_swapped_in_while_we_walk(root: Root, top: Path) -> None:
    """A command that swaps a directory for a link and back, as fast as it can, gets nothing from outside."""
    outside = top.parent / "outside"
    outside.mkdir()
    (outside / "file").write_text("outside")
    (top / "link").symlink_to(outside)
    stop = threading.Event()
    swaps = 0

    def swap() -> None:
        nonlocal swaps
        while not stop.is_set():
            for one, other in (("a", "aside"), ("link", "a"), ("a", "link"), ("aside", "a")):
                (top / one).rename(top / other)
            swaps += 1

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        seen = set()
        while swaps < 300:
            try:
                seen.add(text_at(root, "a/file"))
            except Refused as refused:
                seen.add(refused.fault)
    finally:
        stop.set()
        thread.join()
    assert seen <= {"inside", Fault.OUTSIDE, Fault.NOT_FOUND}


def test_errors_of_ours_are_no_refusals() -> None:
    """Only what a path can be blamed for is the caller's."""
    with pytest.raises(OSError, match="x"), refusing_errors():
        raise OSError(errno.EBADF, "x")
    with pytest.raises(Refused) as caught, refusing_errors():
        raise OSError(errno.ENOSPC, "x")
    assert caught.value.fault == Fault.NO_SPACE
