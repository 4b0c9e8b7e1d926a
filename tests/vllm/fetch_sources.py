"""The Python files of other vLLM releases, without the hundreds of megabytes of kernels around them.

Owns the way from the package index to a folder: of a wheel only its table of contents and the wanted
members are read, by HTTP ranges (a few hundred kilobytes of 300 MB); where the index has no ranges, the
source distribution is read to its end (about 45 MB, nothing of it kept but those files). It must not know
what the files are wanted for.
"""

import html
import io
import re
import tarfile
import tempfile
import zipfile
from collections.abc import Collection
from pathlib import Path

import httpx

INDEX_URL = "https://pypi.org/simple"
CHUNK_BYTES = 256 * 1024


class NoRanges(OSError):
    """The server sends whole files only."""


class RemoteFile(io.RawIOBase):
    """A file behind HTTP that reads only what it is asked for."""

    def __init__(self, http: httpx.Client, url: httpx.URL) -> None:
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


def fetch(http: httpx.Client, index_url: str, version: str, wanted: Collection[str], folder: Path) -> None:
    """Write those of the wanted files that the release has; they are named as in a wheel (``vllm/...``).

    Raises:
        LookupError: the index has no such release.
        httpx.HTTPError: it cannot be reached, or answers with an error.
    """
    urls = release_urls(http, index_url.rstrip("/"), version)
    try:
        files = wheel_members(RemoteFile(http, urls["wheel"]), wanted)
    except NoRanges:
        files = source_members(http, urls["source"], wanted)
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def release_urls(http: httpx.Client, index_url: str, version: str) -> dict[str, httpx.URL]:
    """Of a ``wheel``, for whichever machine, and of the ``source`` distribution. Read from the index's
    HTML, the form that every mirror has."""
    page = http.get(f"{index_url}/vllm/", headers={"accept": "text/html"}).raise_for_status()
    urls = {}
    for link in re.findall(r'href="([^"#]+)', page.text):
        name = link.rpartition("/")[2]
        if name == f"vllm-{version}.tar.gz":
            urls["source"] = page.url.join(html.unescape(link))
        elif name.startswith(f"vllm-{version}-") and name.endswith(".whl"):
            urls["wheel"] = page.url.join(html.unescape(link))
    if len(urls) < 2:
        raise LookupError(f"no vLLM {version} in {index_url}")
    return urls


def wheel_members(wheel: RemoteFile, wanted: Collection[str]) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BufferedReader(wheel, CHUNK_BYTES)) as members:
        present = set(members.namelist())
        return {name: members.read(name) for name in wanted if name in present}


def source_members(http: httpx.Client, url: httpx.URL, wanted: Collection[str]) -> dict[str, bytes]:
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
