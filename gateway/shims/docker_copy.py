"""``cp``: files and directories into a container and out of it, by docker's rules for names.

Owns those rules: what is copied into a directory that is there keeps its name; ``SRC/.`` is what is in it;
``-`` is a tar on standard input or output. A directory travels as a tar by way of a temporary file here.
"""

from __future__ import annotations

import os
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from typing import IO
from urllib.parse import quote

from gateway.shims.calls import Calls, GatewayFault, Refused
from gateway.shims.docker_containers import Container, Containers, DaemonFault
from gateway.shims.docker_words import UsageFault, Words

_PIECE_BYTES = 1 << 20


def copy(calls: Calls, words: Words) -> int:
    """Raises UsageFault, GatewayFault, OSError."""
    if len(words.operands) != 2:
        raise UsageFault("docker cp needs a source and a target, one of them CONTAINER:PATH")
    source, target = words.operands
    inward, outward = _place(target), _place(source)
    if inward is not None and outward is None:
        container = Containers(calls).find(inward[0])
        _Remote(calls, container).put(source, inward[1])
    elif outward is not None and inward is None:
        container = Containers(calls).find(outward[0])
        _Remote(calls, container).get(outward[1], target)
    else:
        raise UsageFault("docker cp: exactly one of the two must be CONTAINER:PATH")
    return 0


def unpack(calls: Calls, container: Container, seed: str) -> None:
    """A directory or a tar here, into the workspace. Raises GatewayFault, OSError."""
    remote = _Remote(calls, container)
    if os.path.isdir(seed):
        remote.put_directory(seed, ".")
    else:
        with open(seed, "rb") as tar:
            remote.put_tar(tar, ".")


def _place(text: str) -> tuple[str, str] | None:
    """Container and path; None: a path here."""
    container, colon, path = text.partition(":")
    return (container, path) if colon and path and "/" not in container and container != "." else None


class _Remote:
    def __init__(self, calls: Calls, container: Container) -> None:
        self._calls = calls
        self._container = container

    def put(self, source: str, target: str) -> None:
        place = self._container.place(os.path.join("/", target))
        is_directory = self._is_directory(place)
        if source == "-":
            self._put_spooled(sys.stdin.buffer, place)
        elif os.path.isdir(source):
            keeps_name = is_directory and os.path.basename(source) not in (".", "")
            keeps_name = keeps_name or (is_directory and source.endswith("/") and not source.endswith("/."))
            name = os.path.basename(source.rstrip("/"))
            self.put_directory(source, f"{place}/{name}" if keeps_name else place)
        elif is_directory or target.endswith("/"):
            if not is_directory:
                raise GatewayFault(f"no such directory: {target}")
            self._put_file(source, f"{place}/{os.path.basename(source)}")
        else:
            self._put_file(source, place)

    def get(self, source: str, target: str) -> None:
        place = self._container.place(os.path.join("/", source))
        name = os.path.basename(source.rstrip("/")) or "."
        is_directory = self._is_directory(place)
        if is_directory is None:
            raise DaemonFault(f"Could not find the file {source} in container {self._container.id}")
        with tempfile.TemporaryFile() as file:
            mode = self._fetch("archive" if is_directory else "files", place, file)
            if target == "-":
                _to_output(file, name, is_directory=is_directory)
            elif is_directory:
                _unpack_here(file, target if name == "." or not os.path.isdir(target) else f"{target}/{name}")
            else:
                _write_here(file, f"{target}/{name}" if os.path.isdir(target) else target, mode)

    def put_directory(self, source: str, place: str) -> None:
        with tempfile.TemporaryFile() as packed:
            with tarfile.open(fileobj=packed, mode="w") as tar:
                for child in sorted(os.listdir(source)):
                    tar.add(os.path.join(source, child), child)
            packed.seek(0)
            self.put_tar(packed, place)

    def put_tar(self, tar: IO[bytes], place: str) -> None:
        self._send("archive", tar, place)

    def _put_spooled(self, tar: IO[bytes], place: str) -> None:
        with tempfile.TemporaryFile() as spooled:
            shutil.copyfileobj(tar, spooled)
            spooled.seek(0)
            self.put_tar(spooled, place)

    def _put_file(self, source: str, place: str) -> None:
        with open(source, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777
            self._send("files", file, place, f"&mode={mode:03o}")

    def _send(self, what: str, file: IO[bytes], place: str, more: str = "") -> None:
        length = os.fstat(file.fileno()).st_size
        path = f"{self._container.path}/{what}?path={quote(place)}{more}"
        self._calls.open("PUT", path, _pieces(file), length=length, wait_s=60.0).body()

    def _fetch(self, what: str, place: str, file: IO[bytes]) -> int:
        """The permissions, of a file."""
        answer = self._calls.open("GET", f"{self._container.path}/{what}?path={quote(place)}", wait_s=60.0)
        for piece in answer.pieces():
            file.write(piece)
        file.seek(0)
        return int(answer.headers.get("x-mode", "644"), 8)

    def _is_directory(self, place: str) -> bool | None:
        """None: there is nothing."""
        if place in (".", "/"):
            return True
        try:
            self._calls.open("HEAD", f"{self._container.path}/files?path={quote(place)}").close()
        except Refused as refused:
            if refused.status == 404:
                return None
            if refused.status == 400:  # A directory is no file.
                return True
            raise
        return False


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    while piece := file.read(_PIECE_BYTES):
        yield piece


def _write_here(file: IO[bytes], target: str, mode: int) -> None:
    with open(target, "wb") as out:
        shutil.copyfileobj(file, out)
        os.fchmod(out.fileno(), mode)


def _unpack_here(file: IO[bytes], target: str) -> None:
    os.makedirs(target, exist_ok=True)
    with tarfile.open(fileobj=file, mode="r") as tar:
        tar.extractall(target, filter="data")


def _to_output(file: IO[bytes], name: str, *, is_directory: bool) -> None:
    """As docker does: a tar with the name of what was asked for."""
    with tarfile.open(fileobj=sys.stdout.buffer, mode="w|") as out:
        if not is_directory:
            entry = tarfile.TarInfo(name)
            entry.size = os.fstat(file.fileno()).st_size
            out.addfile(entry, file)
            return
        with tarfile.open(fileobj=file, mode="r") as tar:
            for member in tar:
                content = tar.extractfile(member) if member.isfile() else None
                member.name = os.path.normpath(f"{name}/{member.name}")
                out.addfile(member, content)
