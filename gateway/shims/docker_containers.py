"""Containers, which are sessions of the gateway: their names, ids and states.

Owns what of a container is kept where: all of it in the labels of the session, nothing here, so that any shim
with the same token sees the same containers. The id follows from the name, so either finds the session.

A container that is stopped and not removed (no ``--rm``) has its commands ended and its workspace kept: the
session is ended with ``persist``, and made again in the state ``exited``.
"""

from __future__ import annotations

import hashlib
import os
import time

from gateway.shims.calls import Calls, GatewayFault, Refused

_LABEL = "docker."
_SHORT_ID = 12
"""As docker shows ids, and enough of one to name a container by."""


class DaemonFault(GatewayFault):
    """What docker's own daemon would have said."""

    def __init__(self, message: str) -> None:
        super().__init__(f"Error response from daemon: {message}")


class NoSuchContainer(DaemonFault):
    def __init__(self, name: str) -> None:
        super().__init__(f"No such container: {name}")


class Container:
    def __init__(self, status: dict[str, object]) -> None:
        labels = status.get("labels")
        assert isinstance(labels, dict)
        self._labels = {
            str(k).removeprefix(_LABEL): str(v) for k, v in labels.items() if k.startswith(_LABEL)
        }
        self.session = str(status["id"])
        self.host = str(status["host"])
        self.workspace = str(status["workspace"])

    @property
    def name(self) -> str:
        return self._labels.get("name", "")

    @property
    def id(self) -> str:
        return id_of(self.name)

    @property
    def is_running(self) -> bool:
        return self._labels.get("state") == "running"

    @property
    def is_removed_when_stopped(self) -> bool:
        return "rm" in self._labels

    @property
    def workdir(self) -> str:
        return self._labels.get("workdir", "/")

    @property
    def path(self) -> str:
        return f"/v1/sessions/{self.session}"

    def place(self, path: str) -> str:
        """A path in the container, as the gateway knows it."""
        path = os.path.normpath(os.path.join(self.workdir, path))
        if self._labels.get("root") == "host":
            return path
        return path.lstrip("/") or "."

    def record(self) -> dict[str, object]:
        """As ``inspect`` shows it, as far as there is something to show."""
        labels = self._labels
        return {
            "Id": self.id,
            "Name": f"/{self.name}",
            "Created": labels.get("created", ""),
            "State": {
                "Status": labels.get("state", ""),
                "Running": self.is_running,
                "Paused": False,
                "Restarting": False,
                "Dead": False,
            },
            "Image": labels.get("image", ""),
            "Config": {
                "Image": labels.get("image", ""),
                "WorkingDir": self.workdir,
                "Labels": {k.removeprefix("label."): v for k, v in labels.items() if k.startswith("label.")},
            },
            "HostConfig": {"AutoRemove": self.is_removed_when_stopped},
            "Mars": {"Session": self.session, "Host": self.host, "Workspace": self.workspace},
        }


class Containers:
    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def make(self, name: str, labels: dict[str, str], settings: dict[str, object]) -> Container:
        """Raises GatewayFault where there is one of that name."""
        session = _session_of(id_of(name))
        if self._get(session) is not None:
            raise DaemonFault(f'Conflict. The container name "/{name}" is already in use')
        created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        known = {"name": name, "state": "running", "created": created, **labels}
        return Container(self._put(session, known, settings))

    def find(self, reference: str) -> Container:
        """By name or by the beginning of its id. Raises NoSuchContainer."""
        is_id = _SHORT_ID <= len(reference) <= 64 and not set(reference) - set("0123456789abcdef")
        for session in ([_session_of(reference)] if is_id else []) + [_session_of(id_of(reference))]:
            found = self._get(session)
            if found is not None and (found.name == reference or found.id.startswith(reference)):
                return found
        raise NoSuchContainer(reference)

    def all(self) -> list[Container]:
        sessions = self._calls.json("GET", "/v1/sessions").get("sessions")
        assert isinstance(sessions, list)
        found = [Container(each) for each in sessions if isinstance(each, dict)]
        return [each for each in found if each.name and each.session == _session_of(each.id)]

    def stop(self, container: Container) -> None:
        """All that runs in it ends. Stopping one that is stopped changes nothing."""
        if container.is_removed_when_stopped:
            self.remove(container)
        elif container.is_running:
            labels = {**container._labels, "state": "exited"}
            kept: dict[str, object] = {"host": container.host, "workspace": {"persist": "keep"}}
            self._put(container.session, labels, kept)
            self._calls.json("DELETE", container.path, wait_s=60.0)
            self._put(container.session, labels, {"host": container.host, "idle_ttl_s": LONGEST_LIFE_S})

    def remove(self, container: Container) -> None:
        self._calls.json("DELETE", container.path, wait_s=60.0)

    def _get(self, session: str) -> Container | None:
        try:
            return Container(self._calls.json("GET", f"/v1/sessions/{session}"))
        except Refused as refused:
            if refused.status == 404:
                return None
            raise

    def _put(self, session: str, labels: dict[str, str], settings: dict[str, object]) -> dict[str, object]:
        marked = {_LABEL + name: value[:256] for name, value in labels.items()}
        return self._calls.json("PUT", f"/v1/sessions/{session}", {**settings, "labels": marked}, wait_s=60.0)


LONGEST_LIFE_S = 7 * 86_400.0
"""That the gateway allows."""


def id_of(name: str) -> str:
    return hashlib.sha256(f"mars container {name}".encode()).hexdigest()


def _session_of(container_id: str) -> str:
    return f"docker-{container_id[:_SHORT_ID]}"
