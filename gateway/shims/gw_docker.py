"""``gw-docker``: the docker commands that agent frameworks use, done by the gateway.

Owns the list of commands, their exit codes and their words to the user. A container here is a session: a
workspace on a host, no image, no isolation.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable

from gateway.shims import docker_words, local_shell, settings
from gateway.shims.calls import Calls, GatewayFault, Unreachable
from gateway.shims.docker_containers import Container, Containers, DaemonFault, NoSuchContainer
from gateway.shims.docker_template import filled
from gateway.shims.docker_words import EXIT_USAGE, Form, UsageFault, Words

VERSION = "27.0.0"
"""Of the docker command line that this is like; scripts compare it."""
_ABOUT = f"Docker version {VERSION}, build mars-gateway"
_ENDING_SIGNALS = (
    "",
    "KILL",
    "SIGKILL",
    "9",
    "TERM",
    "SIGTERM",
    "15",
    "INT",
    "SIGINT",
    "2",
    "QUIT",
    "SIGQUIT",
    "3",
)


def main() -> None:
    local_shell.fill_descriptors()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        code = _run(sys.argv[1:])
        sys.stdout.flush()
    except UsageFault as fault:
        code = _say(str(fault), EXIT_USAGE)
    except DaemonFault as fault:
        code = _say(str(fault), EXIT_USAGE if sys.argv[1] == "run" else 1)
    except GatewayFault as fault:
        code = _say(str(fault), EXIT_USAGE)
    except BrokenPipeError:
        code = 141
    except OSError as error:
        code = _say(f"{error.filename or ''}: {error.strerror}".lstrip(": "), 1)
    os._exit(code)


def _run(arguments: list[str]) -> int:
    if arguments[:1] in (["--version"], ["-v"]):
        sys.stdout.write(_ABOUT + "\n")
        return 0
    if arguments[:1] == ["container"]:  # ``docker container exec`` is ``docker exec``.
        arguments = arguments[1:]
    name = arguments[0] if arguments else ""
    form, command = _COMMANDS.get(name, (None, None))
    if form is None or command is None:
        raise UsageFault(f"{name!r} is not a command of gw-docker; it knows {', '.join(_COMMANDS)}")
    return command(settings.calls_of(os.environ), docker_words.read(form, name, arguments[1:]))


def _run_container(calls: Calls, words: Words) -> int:
    from gateway.shims import docker_run

    return docker_run.run(calls, words, os.environ)


def _exec(calls: Calls, words: Words) -> int:
    from gateway.shims import docker_run

    return docker_run.execute(calls, words, os.environ)


def _copy(calls: Calls, words: Words) -> int:
    from gateway.shims import docker_copy

    return docker_copy.copy(calls, words)


def _stop(calls: Calls, words: Words) -> int:
    containers = Containers(calls)
    return _each(words, lambda reference: containers.stop(containers.find(reference)))


def _kill(calls: Calls, words: Words) -> int:
    if (name := words.values.get("signal", "").upper()) not in _ENDING_SIGNALS:
        raise UsageFault(f"--signal: only signals that end a container are possible, not {name}")
    return _stop(calls, words)


def _remove(calls: Calls, words: Words) -> int:
    containers = Containers(calls)

    def remove(reference: str) -> None:
        try:
            container = containers.find(reference)
        except NoSuchContainer as fault:
            if "force" not in words.flags:
                raise
            _say(str(fault), 0)
            return
        if container.is_running and "force" not in words.flags:
            raise DaemonFault(
                f'cannot remove container "/{container.name}": container is running: stop the container'
                " before removing or force remove"
            )
        containers.remove(container)

    return _each(words, remove)


def _each(words: Words, act: Callable[[str], None]) -> int:
    """As docker: each of them, what worked on stdout, what did not on stderr."""
    if not words.operands:
        raise UsageFault("at least one container is needed")
    code = 0
    for reference in words.operands:
        try:
            act(reference)
        except Unreachable:
            raise
        except GatewayFault as fault:
            code = _say(str(fault), 1)
        else:
            sys.stdout.write(reference + "\n")
    return code


def _inspect(calls: Calls, words: Words) -> int:
    if (kind := words.values.get("type", "container")) != "container":
        raise UsageFault(f"--type: there are only containers, no {kind}")
    containers, records, code = Containers(calls), [], 0
    for reference in words.operands:
        try:
            records.append(containers.find(reference).record())
        except NoSuchContainer as fault:
            code = _say(str(fault), 1)
    template = words.values.get("format")
    if template is None:
        sys.stdout.write(json.dumps(records, indent=4) + "\n")
    else:
        sys.stdout.writelines(filled(template, record) + "\n" for record in records)
    return code


def _list(calls: Calls, words: Words) -> int:
    found = [each for each in Containers(calls).all() if each.is_running or "all" in words.flags]
    for condition in words.list("filter"):
        found = [each for each in found if _fits(each, condition)]
    template = words.values.get("format")
    if "quiet" in words.flags:
        sys.stdout.writelines(_shown_id(each, words) + "\n" for each in found)
        return 0
    if template is None:
        template = "{{.ID}}\t{{.Image}}\t{{.Status}}\t{{.Names}}"
        sys.stdout.write("CONTAINER ID\tIMAGE\tSTATUS\tNAMES\n")
    sys.stdout.writelines(filled(template, _row(each, words)) + "\n" for each in found)
    return 0


def _row(container: Container, words: Words) -> dict[str, object]:
    record = container.record()
    return {
        "ID": _shown_id(container, words),
        "Image": record["Image"],
        "Names": container.name,
        "State": "running" if container.is_running else "exited",
        "Status": "Up" if container.is_running else "Exited",
        "CreatedAt": record["Created"],
    }


def _shown_id(container: Container, words: Words) -> str:
    return container.id if "no-trunc" in words.flags else container.id[:12]


def _fits(container: Container, condition: str) -> bool:
    name, _, value = condition.partition("=")
    match name:
        case "name":
            return value in container.name
        case "id":
            return container.id.startswith(value)
        case "status":
            return value == ("running" if container.is_running else "exited")
        case _:
            raise UsageFault(f"--filter: name=, id= or status= are known, not {condition!r}")


def _version(_: Calls, words: Words) -> int:
    record = {"Client": {"Version": VERSION}, "Server": {"Version": VERSION}}
    template = words.values.get(
        "format", "Client: {{.Client.Version}} (gw-docker)\nServer: {{.Server.Version}}"
    )
    sys.stdout.write(filled(template, record) + "\n")
    return 0


def _info(calls: Calls, words: Words) -> int:
    """Asks the gateway, since scripts ask this to see whether docker is there."""
    hosts = calls.json("GET", "/v1/hosts").get("hosts")
    containers = Containers(calls).all()
    running = sum(each.is_running for each in containers)
    record = {
        "ServerVersion": VERSION,
        "Driver": "mars-gateway",
        "Containers": len(containers),
        "ContainersRunning": running,
        "ContainersStopped": len(containers) - running,
        "Hosts": len(hosts) if isinstance(hosts, list) else 0,
    }
    if (template := words.values.get("format")) is not None:
        sys.stdout.write(filled(template, record) + "\n")
    else:
        sys.stdout.writelines(f"{name}: {value}\n" for name, value in record.items())
    return 0


def _say(text: str, code: int) -> int:
    sys.stderr.write(f"gw-docker: {text}\n")
    return code


_COMMANDS: dict[str, tuple[Form, Callable[[Calls, Words], int]]] = {
    "run": (docker_words.RUN, _run_container),
    "exec": (docker_words.EXEC, _exec),
    "stop": (docker_words.STOP, _stop),
    "kill": (docker_words.KILL, _kill),
    "rm": (docker_words.RM, _remove),
    "cp": (docker_words.CP, _copy),
    "inspect": (docker_words.INSPECT, _inspect),
    "ps": (docker_words.PS, _list),
    "version": (docker_words.FORMAT, _version),
    "info": (docker_words.FORMAT, _info),
}
