"""``run`` and ``exec``: a session made as a container would be, and commands in it.

Owns what becomes of each option. Isolation, images and users there are none; what asks for them is refused.
"""

from __future__ import annotations

import os
import sys

from gateway.shims import docker_copy, docker_images, remote_shell
from gateway.shims.calls import Calls, GatewayFault
from gateway.shims.docker_containers import LONGEST_LIFE_S, Container, Containers, DaemonFault
from gateway.shims.docker_words import UsageFault, Words
from gateway.shims.remote_run import ReaderLeft, RemoteRun, start
from gateway.shims.settings import Environment, number

_TIMEOUT = "MARS_GW_DOCKER_TIMEOUT_S"
_NETWORKS = ("bridge", "default", "host")
_UNIT_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_UNIT_MB = {"b": 1e-6, "k": 1.024e-3, "m": 1.048576, "g": 1073.741824}
_IDLERS = (
    ["tail", "-f", "/dev/null"],
    ["sleep", "infinity"],
    ["cat"],
    ["bash"],
    ["sh"],
    ["/bin/bash"],
    ["/bin/sh"],
)
"""What containers are kept alive with, and shells that nobody is at."""


def run(calls: Calls, words: Words, environ: Environment) -> int:
    """Raises UsageFault, GatewayFault."""
    if not words.operands:
        raise UsageFault("docker run needs an image")
    image_name, *command = words.operands
    if entrypoint := words.values.get("entrypoint"):
        command = [entrypoint, *command]
    image = docker_images.find(image_name, environ)
    name = words.values.get("name") or f"mars-{os.urandom(4).hex()}"
    is_detached = "detach" in words.flags
    life_s = _life_s(command) if is_detached else None
    settings: dict[str, object] = {
        **image.placement,
        "env": {**image.env, **variables(words, environ)},
        "idle_ttl_s": life_s or LONGEST_LIFE_S,
        "limits": _limits(words),
    }
    if life_s is not None:
        settings["ttl_s"] = life_s
    containers = Containers(calls)
    container = containers.make(name, _labels(words, image_name, image.root), settings)
    try:
        _prepare(calls, container, words, image)
        if is_detached:
            if command and life_s is None and command not in _IDLERS:
                start(calls, container.path, _request(container, command, words, environ), _missing)
            sys.stdout.write(container.id + "\n")
            return 0
    except GatewayFault:
        containers.remove(container)
        raise
    try:
        return _attached(calls, container, command or ["bash"], words, environ)
    finally:
        containers.stop(container)


def execute(calls: Calls, words: Words, environ: Environment) -> int:
    """Raises UsageFault, GatewayFault."""
    if len(words.operands) < 2:
        raise UsageFault("docker exec needs a container and a command")
    reference, *command = words.operands
    container = Containers(calls).find(reference)
    if not container.is_running:
        raise DaemonFault(f"container {container.id} is not running")
    if "detach" in words.flags:
        start(calls, container.path, _request(container, command, words, environ), _missing)
        return 0
    return _attached(calls, container, command, words, environ)


def variables(words: Words, environ: Environment) -> dict[str, str]:
    """``K=V``, or ``K`` for our own; those of files first. Raises UsageFault."""
    found: dict[str, str] = {}
    for path in words.list("env-file"):
        try:
            with open(path, encoding="utf-8") as file:
                lines = [line.strip() for line in file]
        except (OSError, UnicodeDecodeError) as error:
            raise UsageFault(f"--env-file: {path} cannot be read: {error}") from error
        _set_all(found, [line for line in lines if line and not line.startswith("#")], environ)
    _set_all(found, words.list("env"), environ)
    return found


def _attached(
    calls: Calls, container: Container, command: list[str], words: Words, environ: Environment
) -> int:
    request = _request(container, command, words, environ)
    input_fd = 0 if "interactive" in words.flags else None
    has_terminal = "tty" in words.flags
    run = RemoteRun(calls, input_fd=input_fd, has_terminal=has_terminal)
    request["stdin_open"] = input_fd is not None and not has_terminal
    try:
        status = run.run(container.path, request, _missing)
    except ReaderLeft:
        return remote_shell.EXIT_READER_LEFT
    if status.get("state") == "rejected" and str(status.get("reason")).startswith("cwd:"):
        sys.stderr.write(f"OCI runtime exec failed: {status.get('reason')}\n")
        return 126
    return remote_shell.exit_code(status)


def _request(
    container: Container, command: list[str], words: Words, environ: Environment
) -> dict[str, object]:
    has_terminal = "tty" in words.flags
    request: dict[str, object] = {
        "argv": command,
        "cwd": container.place(words.values.get("workdir", ".")),
        "env": variables(words, environ),
    }
    if has_terminal:
        request["tty"] = remote_shell.tty_here()
    else:
        request["output"] = {"merge": remote_shell.are_outputs_one()}
    if _TIMEOUT in environ:
        request["timeout_s"] = number(environ, _TIMEOUT, 0.0, least=0.0)
    return request


def _prepare(calls: Calls, container: Container, words: Words, image: docker_images.Image) -> None:
    """What is in the workspace before the first command. Directories, as docker does, are made."""
    if isinstance(image.seed, str):
        docker_copy.unpack(calls, container, image.seed)
    if container.place(".") == "." or container.place("/") == "/":
        steps = []
    else:
        steps = [["mkdir", "-p", "--", container.place(".")]]
    for volume in words.list("volume"):
        steps += _bind(container, volume)
    for argv in steps:
        request: dict[str, object] = {"argv": argv, "cwd": "."}
        status = RemoteRun(calls, input_fd=None).run(container.path, request, _missing)
        if status.get("exit_code") != 0:
            raise GatewayFault(
                f"{argv[0]} in the workspace: {status.get('state')}, {status.get('exit_code')}"
            )


def _bind(container: Container, volume: str) -> list[list[str]]:
    source, colon, target = volume.partition(":")
    if not colon or not source.startswith("/") or not target.startswith("/") or ":" in target:
        raise UsageFault(f"--volume must be /SOURCE:/TARGET, without more options, not {volume!r}")
    if container.place("/") == "/":
        raise UsageFault("--volume: the root of this container is its host's; there is nothing to bind")
    place = container.place(target)
    return [["mkdir", "-p", "--", os.path.dirname(place) or "."], ["ln", "-sfn", "--", source, place]]


def _labels(words: Words, image: str, root: str) -> dict[str, str]:
    workdir = words.values.get("workdir", "/")
    if not workdir.startswith("/"):
        raise UsageFault(f"--workdir must be absolute, not {workdir!r}")
    labels = {"image": image, "workdir": workdir, "root": root}
    if "rm" in words.flags:
        labels["rm"] = "true"
    for label in words.list("label"):
        name, _, value = label.partition("=")
        labels[f"label.{name}"] = value
    return labels


def _limits(words: Words) -> dict[str, object]:
    """Raises UsageFault. Those that the host cannot hold are refused by the gateway."""
    network = words.values.get("network", "default")
    if network not in _NETWORKS:
        raise UsageFault(f"--network: commands have their host's network; {network!r} is not possible")
    limits: dict[str, object] = {}
    try:
        if (memory := words.values.get("memory")) is not None:
            amount, unit = (memory[:-1], memory[-1].lower()) if memory[-1:].isalpha() else (memory, "b")
            limits["memory_mb"] = max(1, round(float(amount) * _UNIT_MB[unit]))
        if (cpus := words.values.get("cpus")) is not None:
            limits["cpu_max"] = float(cpus)
        if (pids := words.values.get("pids-limit")) is not None and int(pids) > 0:
            limits["pids"] = int(pids)
    except (ValueError, KeyError) as error:
        raise UsageFault("--memory is like 512m or 2g, --cpus and --pids-limit are numbers") from error
    return limits


def _life_s(command: list[str]) -> float | None:
    """Of a container whose command only sleeps; None: it says nothing about that."""
    if len(command) < 2 or command[0] != "sleep":
        return None
    try:
        seconds = sum(
            float(word[:-1]) * _UNIT_S[word[-1]] if word[-1:] in _UNIT_S else float(word)
            for word in command[1:]
        )
    except ValueError:
        return None
    return min(seconds, LONGEST_LIFE_S) if seconds > 0 else None


def _set_all(found: dict[str, str], entries: list[str], environ: Environment) -> None:
    for entry in entries:
        name, equals, value = entry.partition("=")
        if not name:
            raise UsageFault(f"--env must be NAME=VALUE or NAME, not {entry!r}")
        if equals:
            found[name] = value
        elif name in environ:
            found[name] = environ[name]


def _missing() -> None:
    """The session went while the command was sent; it is not made again, without what was in it."""
    raise DaemonFault("the container is gone")
