"""fs/* on a real host."""

import base64
from pathlib import Path
from typing import Any

import pytest

from gateway.compat.codex_files import CodexFiles
from gateway.compat.codex_protocol import Copy, OnPath, RpcError, WriteFile, uri_of
from tests.gateway.conftest import Rig

pytestmark = pytest.mark.slow  # real processes throughout


@pytest.fixture
def files(rig: Rig) -> CodexFiles:
    session = rig.gateway.sessions.find("", "s")
    assert session is not None
    return CodexFiles(rig.gateway, session)


def at(path: Path, **fields: Any) -> OnPath:
    return OnPath(uri_of(str(path)), **fields)


async def test_a_file_is_written_read_and_described(files: CodexFiles, tmp_path: Path) -> None:
    path = tmp_path / "a b'ü"
    data = bytes(range(256)) * 1000
    assert await files.write_file(WriteFile(uri_of(str(path)), data)) == {}
    assert path.read_bytes() == data
    read = await files.read_file(at(path))
    assert base64.b64decode(read["dataBase64"]) == data
    (tmp_path / "link").symlink_to(path)
    for name, is_symlink in ((path.name, False), ("link", True)):
        found = await files.get_metadata(at(tmp_path / name))
        assert (found.is_file, found.is_directory, found.is_symlink) == (True, False, is_symlink)
        assert (found.size, found.created_at_ms) == (len(data), 0)
        assert found.modified_at_ms // 1000 == int(path.stat().st_mtime)


async def test_directories(files: CodexFiles, tmp_path: Path) -> None:
    await files.create_directory(at(tmp_path / "x" / "y", recursive=True))
    (tmp_path / "x" / "file\nname").write_text("")
    found = await files.read_directory(at(tmp_path / "x"))
    assert [(each.file_name, each.is_directory, each.is_file) for each in found["entries"]] == [
        ("y", True, False),
        ("file\nname", False, True),
    ]
    assert (await files.get_metadata(at(tmp_path / "x"))).is_directory
    assert await files.canonicalize(at(tmp_path / "x" / ".." / "x")) == {"path": uri_of(str(tmp_path / "x"))}
    source, target = uri_of(str(tmp_path / "x")), uri_of(str(tmp_path / "z"))
    await files.copy(Copy(source, target, recursive=True))
    assert (tmp_path / "z" / "y").is_dir()
    await files.remove(at(tmp_path / "x", recursive=True, force=True))
    assert not (tmp_path / "x").exists()
    await files.remove(at(tmp_path / "x", recursive=True, force=True))


async def test_what_is_not_there_or_not_possible(files: CodexFiles, tmp_path: Path) -> None:
    gone = tmp_path / "none"
    for call in (
        files.read_file(at(gone)),
        files.get_metadata(at(gone)),
        files.read_directory(at(gone)),
        files.canonicalize(at(gone)),
        files.remove(at(gone, force=False)),
        files.copy(Copy(uri_of(str(gone)), uri_of(str(tmp_path / "x")))),
        files.write_file(WriteFile(uri_of(str(gone / "x")), b"")),
    ):
        with pytest.raises(RpcError) as missing:
            await call
        assert missing.value.code == -32004
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    with pytest.raises(RpcError) as refused:
        await files.remove(at(tmp_path / "full", recursive=False, force=False))
    assert refused.value.code == -32603
    with pytest.raises(RpcError, match="Is a directory"):
        await files.read_file(at(tmp_path))
