"""What a command and a caller cannot reach: secrets of the gateway, paths outside, others' sessions."""

import io
import os
import tarfile
from pathlib import Path

import httpx
import pytest

from tests.gateway_live.caller import Caller
from tests.gateway_live.world import World, open_world

SECRET = "a-secret-of-the-gateway"
ALICE, BOB = "alices-token-of-some-length", "bobs-token-of-some-length-too"
OUTSIDE = ["../outside", "/etc/passwd", "a/../../outside", "link/outside", "link"]


def test_secrets_of_the_gateway_are_not_in_a_commands_reach(place: str) -> None:
    """Neither in its environment nor in that of any process above it but the gateway itself."""
    secrets = {"AWS_SECRET_ACCESS_KEY": SECRET, "MARS_GATEWAY_TOKENS": f"alice:{ALICE}"}
    look_up = (
        "p=$$; while [ $p -gt 1 -a $p -ne {gateway} ]; do tr '\\0' '\\n' < /proc/$p/environ;"
        " p=$(sed 's/.*) . //' /proc/$p/stat | cut -d' ' -f1); done"
    )
    with open_world(place, token=ALICE, **secrets) as world:
        seen = world.session().run(look_up.replace("{gateway}", str(world.gateway.pid)))["stdout"]["text"]
        assert "MARS_EXEC_ID=" in seen
        assert SECRET not in seen
        assert ALICE not in seen
        assert SECRET not in world.gateway.log.read_text()
        assert ALICE not in world.gateway.log.read_text()


def test_logs_hold_no_command_and_no_output(world: World) -> None:
    session = world.session(env={"TOKEN": "a-word-of-the-environment"})
    exec_id = session.start("echo a-word-of-the-command; no-such-program", key="a-word-of-the-key")
    world.caller.ended(exec_id)
    session.run(None, argv=["/no/such/program", "a-word-of-the-arguments"])
    session.post("x", cwd="../a-word-of-the-path")
    world.restart_gateway()
    assert "a-word-of" not in world.gateway.log.read_text()
    for log in world.directory.rglob("*.log"):
        assert "a-word-of" not in log.read_text(errors="replace"), log


def test_environment_is_the_sessions_and_the_commands(shared: World) -> None:
    session = shared.session(env={"A": "session", "B": "session"})
    seen = session.stdout("echo $A $B $C; env", env={"B": "command", "C": "command"})
    assert seen.startswith("session command command\n")
    names = {line.partition("=")[0] for line in seen.splitlines()[1:]}
    assert names.isdisjoint({"PYTHONPATH", "VIRTUAL_ENV", "SSH_CLIENT", "SSH_CONNECTION", "SSH_AUTH_SOCK"})


@pytest.mark.parametrize("cwd", ["..", "/", "a/../..", "link"])
def test_working_directory_outside_is_refused(shared: World, cwd: str) -> None:
    session, trace = shared.session(), shared.trace()
    session.stdout("mkdir a; ln -s / link")
    response = session.post(f"touch {trace}", cwd=cwd, wait_s=20)
    assert response.status_code == 400 or response.json()["state"] == "rejected", response.text
    assert "cwd" in response.text or "workspace" in response.text
    assert not trace.exists()


@pytest.mark.parametrize("path", OUTSIDE)
def test_files_outside_are_refused(shared: World, path: str) -> None:
    outside = shared.trace()
    outside.mkdir()
    (outside / "outside").write_text("not yours")
    session = shared.session()
    session.stdout(f"mkdir a; ln -s {outside} link")
    read = session.files("GET", path)
    assert read.status_code in (400, 403), read.text
    assert "not yours" not in read.text
    assert session.files("PUT", path, b"overwritten").status_code in (400, 403)
    assert (outside / "outside").read_text() == "not yours"
    assert not (Path(session.workspace).parent / "outside").exists()
    if path != "link":
        assert session.files("DELETE", path).status_code in (400, 403)
    assert (outside / "outside").exists()


def test_files_inside_are_as_they_were_put(shared: World) -> None:
    session = shared.session()
    content = os.urandom(3_000_000)
    assert session.files("PUT", "deep/down/file", content).status_code in (200, 201, 204)
    assert session.files("GET", "deep/down/file").content == content
    assert session.stdout("wc -c < deep/down/file").strip() == "3000000"
    assert session.files("DELETE", "deep/down/file").status_code == 204
    assert session.files("GET", "deep/down/file").status_code == 404


def _tar(*members: tarfile.TarInfo) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(b"x" * member.size))
    return packed.getvalue()


def _member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.size = kind, target, 0 if target else 1
    return member


@pytest.mark.parametrize(
    "members",
    [
        [_member("../outside")],
        [_member("/tmp/mars-live-outside")],
        [_member("link", tarfile.SYMTYPE, ".."), _member("link/outside")],
        [_member("hard", tarfile.LNKTYPE, "../../../../etc/passwd")],
    ],
    ids=["parent", "absolute", "through a link", "hard link"],
)
def test_archives_do_not_leave_the_workspace(shared: World, members: list[tarfile.TarInfo]) -> None:
    session = shared.session()
    url = f"/v1/sessions/{session.name}/archive"
    shared.caller.http.put(url, params={"path": "."}, content=_tar(*members))
    assert not (Path(session.workspace).parent / "outside").exists()
    assert not Path("/tmp/mars-live-outside").exists()
    assert session.run("cat hard")["exit_code"] != 0


def test_workspace_is_seeded_and_fetched_by_archive(shared: World) -> None:
    session = shared.session()
    url = f"/v1/sessions/{session.name}/archive"
    put = shared.caller.http.put(url, params={"path": "."}, content=_tar(_member("src/one"), _member("two")))
    assert put.status_code in (200, 201, 204), put.text
    assert session.stdout("find . -type f | sort") == "./src/one\n./two\n"
    got = shared.caller.http.get(url, params={"path": "."})
    with tarfile.open(fileobj=io.BytesIO(got.content)) as tar:
        names = {member.name.removeprefix("./") for member in tar if member.isfile()}
    assert names == {"src/one", "two"}


def test_tenants_do_not_see_each_other(place: str) -> None:
    with open_world(place, token=ALICE, MARS_GATEWAY_TOKENS=f"alice:{ALICE},bob:{BOB}") as world:
        session = world.session("shared-name")
        answer = session.run("echo mine > file; echo secret", key="same")
        bob = Caller(world.gateway.url, BOB)
        try:
            for path in ("sessions/shared-name", f"execs/{answer['id']}", f"execs/{answer['id']}/output"):
                assert bob.http.get(f"/v1/{path}").status_code == 404
            own = bob.session("shared-name", host=world.host)
            assert own.workspace != session.workspace
            assert own.stdout("ls; echo own", key="same") == "own\n"
            assert bob.http.get(f"/v1/execs/{answer['id']}").status_code == 404
        finally:
            bob.close()
        assert httpx.get(f"{world.gateway.url}/v1/hosts").status_code == 401
        assert httpx.get(f"{world.gateway.url}/healthz").status_code == 200
