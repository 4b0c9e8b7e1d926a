"""Single files of a release, from servers with ranges and without."""

import io
import tarfile
import zipfile
from pathlib import Path

import httpx
import pytest

from tests.vllm.fetch_sources import fetch

pytestmark = pytest.mark.vllm

WANTED = ("vllm/a.py", "vllm/v1/b.py", "vllm/absent.py")
FILES = {"vllm/a.py": b"a = 1\n", "vllm/v1/b.py": b"b = 2\n", "vllm/kernel.so": bytes(1 << 20)}


def wheel() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as members:
        for name, data in FILES.items():
            members.writestr(name, data)
    return buffer.getvalue()


def source_distribution() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as members:
        for name, data in FILES.items():
            member = tarfile.TarInfo(f"vllm-1.0.0/{name}")
            member.size = len(data)
            members.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


class Index:
    """A package index with one release, and others whose names begin alike."""

    def __init__(self, *, has_ranges: bool) -> None:
        self._has_ranges = has_ranges
        self._files = {
            "vllm-1.0.0-cp38-abi3-manylinux_2_28_x86_64.whl": wheel(),
            "vllm-1.0.0.tar.gz": source_distribution(),
            "vllm-1.0.0.post1-cp38-abi3-manylinux_2_28_x86_64.whl": b"",
            "vllm-1.0.0rc1.tar.gz": b"",
        }
        self.sent_bytes = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        name = request.url.path.rpartition("/")[2]
        if not name:
            links = (f'<a href="../../files/{file}#sha256=0">{file}</a>' for file in self._files)
            return httpx.Response(200, html="\n".join(links))
        data = self._files[name]
        span = request.headers.get("range")
        if span is None or not self._has_ranges:
            return self._answer(200, data)
        start, _, end = span.removeprefix("bytes=").partition("-")
        part = data[int(start) : int(end) + 1]
        return self._answer(206, part, {"content-range": f"bytes {start}-{end}/{len(data)}"})

    def _answer(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> httpx.Response:
        self.sent_bytes += len(data)
        return httpx.Response(status, content=data, headers=headers)


@pytest.mark.parametrize("has_ranges", [True, False])
def test_fetch(tmp_path: Path, has_ranges: bool) -> None:
    """The same files either way; with ranges without what lies between them."""
    index = Index(has_ranges=has_ranges)
    with httpx.Client(transport=httpx.MockTransport(index)) as http:
        fetch(http, "http://index/simple", "1.0.0", WANTED, tmp_path)
    found = {str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*.py")}
    assert found == {name: FILES[name] for name in WANTED if name in FILES}
    assert (index.sent_bytes < len(wheel()) / 2) is has_ranges


def test_release_that_does_not_exist(tmp_path: Path) -> None:
    http = httpx.Client(transport=httpx.MockTransport(Index(has_ranges=True)))
    with http, pytest.raises(LookupError, match=r"no vLLM 2\.0\.0"):
        fetch(http, "http://index/simple", "2.0.0", WANTED, tmp_path)
