"""The Python files of other vLLM releases, without the hundreds of megabytes of kernels around them.

Owns the way from the package index to a folder: of a wheel only its table of contents and the wanted
members are read, by HTTP ranges (a few hundred kilobytes of 300 MB); where the index has no ranges, the
source distribution is read to its end (about 45 MB, nothing of it kept but those files). The index is
pip's, ``PIP_INDEX_URL``. It must not know what the files are wanted for.

    python -m tests.vllm.fetch_sources FOLDER 0.31.0 0.33.0

writes ``FOLDER/0.31.0/vllm/...`` and so on, and leaves alone what is there already.
"""

import io
import os
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Collection
from pathlib import Path

import httpx

from backend_patch.contract import FILES

INDEX_URL = "https://pypi.org/simple"
CHUNK_BYTES = 256 * 1024
TIMEOUT_S = 60.0


class NoRanges(OSError):
    """The server sends whole files only."""


class RemoteFile(io.RawIOBase):
    """A file behind HTTP that reads only what it is asked for."""

    def __init__(self, http: httpx.Client, url: str) -> None:
        self._http = http
        self._url = url
        self._at = 0
        self._size_bytes = int(self._get("bytes=0-0").headers["content-range"].rpartition("/")[2])

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size_bytes}[whence]
        self._at = start + offset
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        end = min(self._at + len(buffer), self._size_bytes)
        if end <= self._at:
            return 0
        data = self._get(f"bytes={self._at}-{end - 1}").content
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def _get(self, span: str) -> httpx.Response:
        with self._http.stream("GET", self._url, headers={"range": span}) as answer:
            answer.raise_for_status()
            if answer.status_code != httpx.codes.PARTIAL_CONTENT:
                raise NoRanges(self._url)
            answer.read()
        return answer


def fetch(folder: Path, version: str, wanted: Collection[str], index_url: str) -> None:
    """Write the wanted files of a release; members are named as in a wheel (``vllm/...``)."""
    with httpx.Client(timeout=TIMEOUT_S, follow_redirects=True) as http:
        urls = release_urls(http, index_url, version)
        wheel = next(url for name, url in urls.items() if name.endswith("x86_64.whl"))
        try:
            files = wheel_members(RemoteFile(http, wheel), wanted)
        except NoRanges:
            files = source_members(http, urls[f"vllm-{version}.tar.gz"], wanted)
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def release_urls(http: httpx.Client, index_url: str, version: str) -> dict[str, str]:
    answer = http.get(
        f"{index_url}/vllm/", headers={"accept": "application/vnd.pypi.simple.v1+json"}
    ).raise_for_status()
    return {
        file["filename"]: str(answer.url.join(file["url"]))
        for file in answer.json()["files"]
        if file["filename"].startswith(f"vllm-{version}")
        and file["filename"].split("-")[1] in (version, f"{version}.tar.gz")
    }


def wheel_members(wheel: RemoteFile, wanted: Collection[str]) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BufferedReader(wheel, CHUNK_BYTES)) as members:
        present = set(members.namelist())
        return {name: members.read(name) for name in wanted if name in present}


def source_members(http: httpx.Client, url: str, wanted: Collection[str]) -> dict[str, bytes]:
    with tempfile.TemporaryFile() as archive:
        with http.stream("GET", url) as answer:
            answer.raise_for_status()
            for chunk in answer.iter_bytes(CHUNK_BYTES):
                archive.write(chunk)
        archive.seek(0)
        with tarfile.open(fileobj=archive) as members:
            return {
                name: extracted.read()
                for member in members
                if (name := member.name.partition("/")[2]) in wanted
                and (extracted := members.extractfile(member)) is not None
            }


def main(folder: str, *versions: str) -> None:
    index_url = os.environ.get("PIP_INDEX_URL", INDEX_URL).rstrip("/")
    say: Callable[[str], int] = sys.stderr.write
    for version in versions:
        into = Path(folder) / version
        if not into.exists():
            with tempfile.TemporaryDirectory(dir=into.parent) as scratch:
                fetch(Path(scratch) / "new", version, FILES, index_url)
                (Path(scratch) / "new").rename(into)
            say(f"vLLM {version}: {sum(1 for _ in into.rglob('*.py'))} files\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
