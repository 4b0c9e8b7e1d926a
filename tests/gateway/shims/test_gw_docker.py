"""``gw-docker`` on a real gateway: what agent frameworks do with docker, done."""

import io
import json
import os
import signal
import subprocess
import tarfile
from collections.abc import Iterator

import pytest

from tests.gateway.shims.shim import Shims, sleeping, unique_seconds
from tests.gateway_live.processes import eventually
from tests.gateway_live.world import World

pytestmark = pytest.mark.slow

QUIET = [
    "-e",
    "PAGER=cat",
    "-e",
    "MANPAGER=cat",
    "-e",
    "LESS=-R",
    "-e",
    "PIP_PROGRESS_BAR=off",
    "-e",
    "TQDM_DISABLE=1",
]


@pytest.fixture
def box(shims: Shims) -> Iterator[str]:
    """A container, by name."""
    name = f"box-{os.urandom(4).hex()}"
    started = shims.docker(
        "run", "-d", "--name", name, "-w", "/testbed", "-e", "A=b", "python:3", "sleep", "infinity"
    )
    assert started.returncode == 0, started.stderr
    yield name
    shims.docker("rm", "-f", name)


def test_what_mini_swe_agent_sends(shims: Shims, world: World) -> None:
    """Version 2: run, exec for each command, stop; all output on one stream; files are found again."""
    name = f"minisweagent-{os.urandom(4).hex()}"
    started = shims.docker("run", "-d", "--name", name, "-w", "/", "--rm", "python:3.11", "sleep", "2h")
    container = started.stdout.strip()
    assert (started.returncode, started.stderr) == (0, "")
    assert len(container) == 64
    assert set(container) <= set("0123456789abcdef")

    def execute(command: str) -> "subprocess.CompletedProcess[str]":
        words = ["exec", "-w", "/", *QUIET, container, "bash", "-lc", command]
        return shims.docker(*words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    first = execute("echo hello; echo err >&2; echo $PAGER $TQDM_DISABLE; echo text > file; false")
    assert (first.returncode, first.stdout) == (1, "hello\nerr\ncat 1\n")
    assert execute("cat file").stdout == "text\n"
    assert (
        execute("echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT").stdout
        == "COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT\n"
    )
    session = world.caller.http.get(f"/v1/sessions/docker-{container[:12]}").json()
    assert 7100 < session["expires_in_s"] <= 7200
    stopped = shims.docker("stop", container)
    assert (stopped.returncode, stopped.stdout) == (0, f"{container}\n")
    assert "No such container" in execute("true").stdout


def test_client_that_is_killed_ends_its_command(shims: Shims, box: str) -> None:
    """As ``subprocess.run(timeout=...)`` does it: SIGKILL, to the client alone."""
    seconds = unique_seconds()
    command = [shims.gw_docker, "exec", box, "bash", "-c", f"sleep {seconds}; true"]
    with subprocess.Popen(command, env=shims.environment, stdin=subprocess.DEVNULL) as client:
        eventually(lambda: sleeping(seconds), "it runs")
        os.kill(client.pid, signal.SIGKILL)
    eventually(lambda: not sleeping(seconds), "it is gone")


def test_options_of_exec(shims: Shims, box: str) -> None:
    assert shims.docker("exec", box, "sh", "-c", "basename $PWD; echo $A").stdout == "testbed\nb\n"
    assert shims.docker("exec", "-i", box, "cat", input="input").stdout == "input"
    assert shims.docker("exec", box, "cat", input="input").stdout == ""
    assert shims.docker("exec", "-eA=c", "--env", "B", box, "sh", "-c", "echo $A $B").stdout == "c\n"
    with_ours = {**shims.environment, "B": "ours"}
    assert shims.docker("exec", "-e", "B", box, "sh", "-c", "echo $B", env=with_ours).stdout == "ours\n"
    assert shims.docker("exec", "-w/", box, "sh", "-c", "basename $PWD").stdout == "workspace\n"
    assert shims.docker("exec", "-t", box, "sh", "-c", "test -t 1 && echo tty").stdout == "tty\n"
    assert shims.docker("exec", "-d", box, "touch", "detached").returncode == 0
    eventually(lambda: shims.docker("exec", box, "test", "-e", "detached").returncode == 0, "it ran")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["exec", "BOX", "no-such-program"], 127, "no such program"),
        (["exec", "-w", "/missing", "BOX", "ls"], 126, "missing"),
        (["exec", "BOX", "sh", "-c", "kill -9 $$"], 137, ""),
        (["exec", "no-such-box", "ls"], 1, "No such container: no-such-box"),
        (["exec", "--gpus", "all", "BOX", "ls"], 125, "unknown flag: --gpus"),
        (["exec", "-u", "1000", "BOX", "ls"], 125, "unknown shorthand flag: -u"),
        (["exec", "BOX"], 125, "a container and a command"),
        (["run", "--network", "none", "image"], 125, "--network"),
        (["run", "-v", "name:/data", "image"], 125, "--volume"),
        (["run", "-m", "much", "image"], 125, "--memory"),
        (["run", "--name", "BOX", "image"], 125, "already in use"),
        (["build", "."], 125, "not a command of gw-docker"),
        (["rm", "BOX"], 1, "is running"),
        (["kill", "-s", "HUP", "BOX"], 125, "--signal"),
        (["inspect", "-f", "{{range .X}}", "BOX"], 125, "--format"),
    ],
)
def test_what_goes_wrong_is_said(shims: Shims, box: str, words: list[str], code: int, said: str) -> None:
    answer = shims.docker(*[box if word == "BOX" else word for word in words])
    assert (answer.returncode, answer.stdout.strip("[]\n")) == (code, "")
    assert said in answer.stderr


def test_container_is_found_by_name_and_id(shims: Shims, box: str) -> None:
    record = json.loads(shims.docker("inspect", box).stdout)[0]
    assert record["Name"] == f"/{box}"
    assert record["State"]["Running"] is True
    assert record["Config"]["WorkingDir"] == "/testbed"
    for reference in (record["Id"], record["Id"][:12], box):
        template = "{{.State.Running}} {{json .State.Status}}"
        assert shims.docker("inspect", "-f", template, reference).stdout == 'true "running"\n'
    listed = shims.docker("ps", "--format", "{{.ID}} {{.Names}} {{.Image}}").stdout.splitlines()
    assert f"{record['Id'][:12]} {box} python:3" in listed
    assert shims.docker("ps", "-q", "--no-trunc", "-f", f"name={box}").stdout == record["Id"] + "\n"


def test_stopped_container_keeps_its_files(shims: Shims, box: str) -> None:
    shims.docker("exec", box, "sh", "-c", "echo kept > file")
    seconds = unique_seconds()
    shims.docker("exec", "-d", box, "sleep", seconds)
    eventually(lambda: sleeping(seconds), "it runs")
    assert shims.docker("stop", "-t", "1", box).stdout == f"{box}\n"
    assert sleeping(seconds) == []
    assert shims.docker("inspect", "-f", "{{.State.Status}}", box).stdout == "exited\n"
    assert "is not running" in shims.docker("exec", box, "ls").stderr
    assert shims.docker("ps", "-q", "-f", f"name={box}").stdout == ""
    assert shims.docker("cp", f"{box}:/testbed/file", str(shims.directory)).returncode == 0
    assert (shims.directory / "file").read_text() == "kept\n"
    assert shims.docker("rm", box).stdout == f"{box}\n"
    gone = shims.docker("inspect", box)
    assert (gone.returncode, json.loads(gone.stdout)) == (1, [])
    assert shims.docker("rm", "-f", box).returncode == 0


def test_files_are_copied_by_dockers_rules(shims: Shims, box: str) -> None:
    here = shims.directory / "tree"
    (here / "below").mkdir(parents=True)
    (here / "program").write_text("#!/bin/sh\necho ran\n")
    (here / "program").chmod(0o755)
    (here / "below" / "file").write_text("x")

    def find() -> list[str]:
        return sorted(shims.docker("exec", box, "find", ".", "-type", "f").stdout.split())

    assert shims.docker("cp", "tree", f"{box}:/testbed/new").returncode == 0
    assert find() == ["./new/below/file", "./new/program"]
    shims.docker("cp", "tree", f"{box}:/testbed/new")
    assert "./new/tree/program" in find()
    shims.docker("cp", "tree/.", f"{box}:/testbed")
    assert "./program" in find()
    shims.docker("cp", "tree/below/file", f"{box}:/testbed/below")
    shims.docker("cp", "tree/below/file", f"{box}:/testbed/renamed")
    assert {"./below/file", "./renamed"} <= set(find())
    assert shims.docker("exec", box, "./program").stdout == "ran\n"
    shims.docker("cp", f"{box}:/testbed/new", str(shims.directory / "back"))
    assert (shims.directory / "back" / "below" / "file").read_text() == "x"
    assert os.access(shims.directory / "back" / "program", os.X_OK)
    shims.docker("cp", f"{box}:/testbed/renamed", str(shims.directory))
    assert (shims.directory / "renamed").read_text() == "x"
    missing = shims.docker("cp", f"{box}:/nothing", ".")
    assert (missing.returncode, "Could not find the file" in missing.stderr) == (1, True)


def test_files_are_copied_as_tar(shims: Shims, box: str) -> None:
    shims.docker("exec", box, "sh", "-c", "mkdir d; echo y > d/f")
    made = subprocess.run(
        [shims.gw_docker, "cp", f"{box}:/testbed/d", "-"], env=shims.environment, capture_output=True
    )
    with tarfile.open(fileobj=io.BytesIO(made.stdout)) as tar:
        assert "d/f" in tar.getnames()
    put = [shims.gw_docker, "cp", "-", f"{box}:/testbed/e"]
    assert subprocess.run(put, env=shims.environment, input=made.stdout).returncode == 0
    assert shims.docker("exec", box, "cat", "e/d/f").stdout == "y\n"


def test_run_to_the_end(shims: Shims) -> None:
    name = f"once-{os.urandom(4).hex()}"
    answer = shims.docker("run", "--rm", "--name", name, "-i", "image", "sh", "-c", "cat; exit 3", input="in")
    assert (answer.returncode, answer.stdout) == (3, "in")
    assert shims.docker("inspect", name).returncode == 1
    answer = shims.docker("run", "--name", name, "--entrypoint", "echo", "image", "a", "b")
    assert answer.stdout == "a b\n"
    assert shims.docker("inspect", "-f", "{{.State.Running}}", name).stdout == "false\n"
    assert shims.docker("rm", name).returncode == 0


def test_image_chooses_what_a_container_begins_with(shims: Shims) -> None:
    seed = shims.directory / "seed"
    seed.mkdir()
    (seed / "README").write_text("of the image\n")
    images = shims.directory / "images.json"
    images.write_text(json.dumps({"swe/*": {"seed": str(seed), "host": "local", "env": {"FROM": "image"}}}))
    shims.settings["MARS_GW_DOCKER_IMAGES"] = str(images)
    answer = shims.docker("run", "--rm", "swe/task-1:latest", "sh", "-c", "cat README; echo $FROM")
    assert answer.stdout == "of the image\nimage\n"
    images.write_text('{"swe/*": {"hots": "local"}}')
    wrong = shims.docker("run", "--rm", "swe/task-1", "true")
    assert (wrong.returncode, "hots" in wrong.stderr) == (125, True)


def test_root_of_the_host(shims: Shims) -> None:
    """Where each host is a container of the image itself."""
    shims.settings["MARS_GW_DOCKER_ROOT"] = "host"
    answer = shims.docker("run", "--rm", "-w", str(shims.directory), "image", "pwd")
    assert answer.stdout.strip() == str(shims.directory)


def test_volume_is_the_directory_of_the_host(shims: Shims) -> None:
    (shims.directory / "file").write_text("x\n")
    answer = shims.docker("run", "--rm", "-v", f"{shims.directory}:/data/in", "image", "cat", "data/in/file")
    assert answer.stdout == "x\n"


def test_version_and_info(shims: Shims) -> None:
    assert shims.docker("--version").stdout.startswith("Docker version ")
    assert shims.docker("version", "--format", "{{.Server.Version}}").stdout.strip().count(".") == 2
    assert "ServerVersion" in shims.docker("info").stdout
    shims.url = "http://127.0.0.1:9"
    down = shims.docker("info")
    assert (down.returncode, down.stdout) == (125, "")
    assert "127.0.0.1:9" in down.stderr
