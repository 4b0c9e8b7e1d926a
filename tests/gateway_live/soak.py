"""Agents at work on several hosts while everything that can break does, and the books afterwards.

Owns the mix of commands, the faults, the ledger and its audit. Each command writes its key to a file on its
host first, so that what ran is known from there and not from the gateway's answers.
"""

import base64
import contextlib
import hashlib
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.gateway_live.caller import ACTIVE, Answer, Session
from tests.gateway_live.processes import eventually, kill_all, named, open_descriptors
from tests.gateway_live.world import World

AGENTS = 12
"""Sessions at a time, each with one command after the other."""
PATIENCE_S = 90.0
"""How long a client tries again before it calls a command unaccounted for."""
DESCRIPTOR_SLACK = 2
SESSION_TTL_S = 180
"""Age counts through restarts of the gateway; idleness begins anew with each, and here there are many."""
BURST = 30
"""Commands per host of one round that looks for leaks: each may leave less than a tenth of a descriptor."""
LINES = 3000
KILLED = 128 + signal.SIGKILL
NO_FAULT = "no fault of its host explains that"


@dataclass(frozen=True)
class Kind:
    """A sort of command, and what has to come of it where no fault prevents that."""

    name: str
    command: str
    state: str = "exited"
    exit_code: int = 0
    stdout: bytes = b""
    fields: dict[str, Any] = field(default_factory=dict)


KINDS = (
    Kind("short", "echo short", stdout=b"short\n"),
    Kind("fails", "echo oops >&2; exit 7", exit_code=7),
    Kind("sleeps", "sleep 0.7; echo slept", stdout=b"slept\n"),
    Kind("writes", f"seq {LINES}", stdout="".join(f"{n}\n" for n in range(1, LINES + 1)).encode()),
    Kind("trickles", "for n in 1 2 3 4 5 6; do echo $n; sleep 0.3; done", stdout=b"1\n2\n3\n4\n5\n6\n"),
    Kind("reads", "cat", stdout=b"in\n", fields={"stdin_b64": base64.b64encode(b"in\n").decode()}),
    Kind("escapes", "setsid -f sleep 1000; sleep 1000 & echo left", stdout=b"left\n"),
    Kind(
        "hangs",
        "trap '' TERM; setsid sleep 1000 & while :; do sleep 0.1; done",
        "timed_out",
        124,
        fields={"timeout_s": 0.6, "kill_grace_s": 0.2},
    ),
    Kind("cancelled", "setsid sleep 1000 & sleep 1000", "cancelled", 130, fields={"kill_grace_s": 0.2}),
)


@dataclass
class Entry:
    """One command in the ledger."""

    key: str
    kind: Kind
    host: str
    began_s: float
    ended_s: float = 0.0
    answer: Answer | None = None
    output_digest: str | None = None
    ids: set[str] = field(default_factory=set)
    trouble: str | None = None


@dataclass(frozen=True)
class Fault:
    kind: str
    host: str | None
    """None: the gateway."""
    began_s: float
    ended_s: float


class Soak:
    def __init__(self, world: World, seed: int, settle_s: float = 15.0) -> None:
        """``settle_s``: what is being ended when the work is over gets so long to be gone."""
        self._world = world
        self._random = random.Random(seed)
        self._stop = threading.Event()
        self.entries: list[Entry] = []
        self.faults: list[Fault] = []
        self.retried: Counter[str] = Counter()
        """Answers after which a client tried again, by what they were."""
        self.forgotten = 0
        """Commands that had been accepted, and that a gateway started later did not know."""
        self._settle_s = settle_s

    def run(self, duration_s: float) -> None:
        with ThreadPoolExecutor(AGENTS) as pool:
            seeds = [self._random.random() for _ in range(AGENTS)]
            agents = [pool.submit(self._work, number, seed) for number, seed in enumerate(seeds)]
            try:
                self._break_things(time.monotonic() + duration_s)
            finally:
                self._stop.set()
            for agent in agents:
                agent.result()

    # The clients

    def _work(self, number: int, seed: float) -> None:
        chance = random.Random(seed)
        hosts = list(self._world.workers)
        while not self._stop.is_set():
            host = chance.choice(hosts)
            session = self._open_session(f"agent-{number}-{chance.randrange(10**9)}", host)
            for _ in range(chance.randrange(1, 8)):
                self._one_command(session, chance)
            if chance.random() < 0.5:
                self._persistently(lambda name=session.name: self._delete(name))  # type: ignore[misc]

    def _open_session(self, name: str, host: str) -> Session:
        """Half of them are never deleted, as by agents that die; the gateway holds a thousand at most."""
        caller = self._world.caller
        return self._persistently(lambda: caller.session(name, host=host, ttl_s=SESSION_TTL_S))

    def _delete(self, name: str) -> None:
        self._world.caller.http.delete(f"/v1/sessions/{name}").raise_for_status()

    def _one_command(self, session: Session, chance: random.Random) -> None:
        kind = chance.choice(KINDS)
        key = f"{kind.name}-{chance.randrange(10**12)}"
        entry = Entry(key, kind, session.host, time.monotonic())
        self.entries.append(entry)
        try:
            self._live(entry, session, chance)
        except (AssertionError, httpx.HTTPError) as error:
            entry.trouble = f"{type(error).__name__}: {str(error)[:300]}"
        entry.ended_s = time.monotonic()

    def _live(self, entry: Entry, session: Session, chance: random.Random) -> None:
        if chance.random() < 0.2:
            self._post_and_leave(entry, session)
        if chance.random() < 0.2:
            with ThreadPoolExecutor(2) as pool:
                list(pool.map(lambda _: self._post(entry, session), range(2)))
        exec_id = self._post(entry, session)
        if entry.kind.state == "cancelled":
            time.sleep(chance.random() * 0.5)
            self._persistently(lambda: self._world.caller.cancel(exec_id))
        entry.answer = self._persistently(lambda: self._ended(self._known(exec_id, entry, session)))
        self._post(entry, session)
        if entry.answer["state"] != "rejected":
            output = self._persistently(lambda: self._world.caller.output(exec_id))
            entry.output_digest = hashlib.sha256(output).hexdigest()

    def _body(self, entry: Entry) -> dict[str, Any]:
        command = f"echo {entry.key} >> {self.ran(entry.host)}; {entry.kind.command}"
        return {"command": command, "cpu": 0.2, "queue_timeout_s": 120, **entry.kind.fields}

    def ran(self, host: str) -> Path:
        return self._world.traces / f"ran-{host}"

    def _post(self, entry: Entry, session: Session) -> str:
        body = self._body(entry)
        exec_id = self._persistently(lambda: session.start(key=entry.key, **body))
        entry.ids.add(exec_id)
        return exec_id

    def _post_and_leave(self, entry: Entry, session: Session) -> None:
        """A client that dies: it sends and never reads the answer."""
        with contextlib.suppress(httpx.HTTPError), httpx.Client(timeout=0.05, trust_env=False) as http:
            url = f"{self._world.gateway.url}/v1/sessions/{session.name}/execs"
            http.post(url, json=self._body(entry), headers={"Idempotency-Key": entry.key})

    def _known(self, exec_id: str, entry: Entry, session: Session) -> str:
        """A gateway that is killed forgets what it had accepted and not started; the key starts it then."""
        response = self._world.caller.http.get(f"/v1/execs/{exec_id}")
        if response.status_code != 404:
            return exec_id
        self.forgotten += 1
        return session.start(key=entry.key, **self._body(entry))

    def _ended(self, exec_id: str) -> Answer:
        while (answer := self._world.caller.look(exec_id, wait_s=5))["state"] in ACTIVE:
            pass
        return answer

    def _persistently(self, ask: Callable[[], Any]) -> Any:
        """As a careful client does: what broke or was refused for now is asked again."""
        deadline_s = time.monotonic() + PATIENCE_S
        while True:
            try:
                return ask()
            except (httpx.HTTPError, AssertionError) as error:
                self.retried[_reason(error)] += 1
                if time.monotonic() > deadline_s:
                    raise
                time.sleep(0.1)

    # The faults

    def _break_things(self, until_s: float) -> None:
        faults = (self._kill_gateway, self._cut, self._kill_agent, self._reboot, self._unreachable)
        while time.monotonic() < until_s:
            time.sleep(self._random.uniform(1.0, 4.0))
            host = self._random.choice(list(self._world.workers))
            self._random.choice(faults)(host)

    def _note(self, kind: str, host: str | None, began_s: float) -> None:
        self.faults.append(Fault(kind, host, began_s, time.monotonic()))

    def _kill_gateway(self, host: str) -> None:
        began_s = time.monotonic()
        self._world.gateway.kill()
        time.sleep(self._random.random())
        self._world.caller.move_to(self._world.gateway.start())
        self._note("gateway killed", None, began_s)

    def _cut(self, host: str) -> None:
        began_s = time.monotonic()
        self._world.workers[host].cut()
        self._note("connection cut", host, began_s)

    def _kill_agent(self, host: str) -> None:
        began_s = time.monotonic()
        kill_all(named("serve", str(self._world.workers[host].directory)))
        self._note("agent killed", host, began_s)

    def _reboot(self, host: str) -> None:
        began_s = time.monotonic()
        self._world.workers[host].reboot()
        time.sleep(self._random.random())
        self._world.workers[host].start()
        self._note("host rebooted", host, began_s)

    def _unreachable(self, host: str) -> None:
        began_s = time.monotonic()
        self._world.unplug(host)
        time.sleep(2 * self._random.random())
        self._world.workers[host].start()
        self._note("host unreachable", host, began_s)

    # The books

    def audit(self) -> dict[str, Any]:
        """Figures, and every violation in words; an empty list of those is what is promised."""
        eventually(self._world.is_up, "all hosts are up in the end")
        ran = Counter(
            line for host in self._world.workers if self.ran(host).exists() for line in _lines(self.ran(host))
        )
        violations = [text for entry in self.entries for text in self._violations(entry, ran[entry.key])]
        orphans = self._world.orphans(self._settle_s)
        violations += [f"orphan: {text}" for text in orphans]
        leaks = self._leaks()
        violations += [f"descriptors: {text}" for text in leaks]
        return {
            "commands": len(self.entries),
            "states": dict(Counter(e.answer["state"] if e.answer else "unknown" for e in self.entries)),
            "kinds": dict(Counter(e.kind.name for e in self.entries)),
            "faults": dict(Counter(fault.kind for fault in self.faults)),
            "retried": dict(self.retried.most_common(12)),
            "executed": sum(ran.values()),
            "executed_twice": sum(count > 1 for count in ran.values()),
            "accepted_and_forgotten": self.forgotten,
            "unaccounted": sum(entry.answer is None for entry in self.entries),
            "orphans": len(orphans),
            "descriptor_leaks": len(leaks),
            "violations": violations,
        }

    def _violations(self, entry: Entry, times_ran: int) -> list[str]:
        found = [] if times_ran <= 1 else [f"{entry.key}: ran {times_ran} times"]
        if len(entry.ids) > 1:
            found.append(f"{entry.key}: one key, ids {entry.ids}")
        if entry.answer is None:
            return [*found, f"{entry.key}: unaccounted for: {entry.trouble}"]
        if entry.trouble is not None:
            found.append(f"{entry.key}: {entry.trouble}")
        return found + [f"{entry.key}: {text}: {entry.answer}" for text in self._wrong(entry, times_ran)]

    def _wrong(self, entry: Entry, times_ran: int) -> list[str]:
        answer, kind = entry.answer, entry.kind
        assert answer is not None
        match answer["state"]:
            case "rejected":
                every = {fault.kind for fault in self.faults}
                wrong = ["rejected, but it ran"] * (times_ran > 0)
                return wrong + [NO_FAULT] * (not self._is_explained(entry, every))
            case "lost":
                made_up = ["lost with an exit code"] * (answer["exit_code"] is not None)
                return made_up + [NO_FAULT] * (
                    not self._is_explained(entry, {"agent killed", "host rebooted"})
                )
            case state if (state, answer["exit_code"]) != (kind.state, kind.exit_code):
                # A host that goes down may end a command, or its last child, before it ends the agent.
                is_excused = answer["exit_code"] == KILLED and self._is_explained(entry, {"host rebooted"})
                return [] if is_excused else [f"expected {kind.state} with {kind.exit_code}"]
        wrong = ["it never ran"] * (times_ran == 0 and kind.state != "cancelled")
        if entry.output_digest != hashlib.sha256(kind.stdout).hexdigest():
            wrong.append("its output is not whole")
        return wrong

    def _is_explained(self, entry: Entry, excuses: set[str]) -> bool:
        """Only what ended the command or kept it from starting excuses such an answer."""
        return any(
            fault.host in (None, entry.host)
            and fault.kind in excuses
            and fault.began_s <= entry.ended_s
            and fault.ended_s >= entry.began_s
            for fault in self.faults
        )

    def _descriptors(self) -> dict[str, int]:
        workers = self._world.workers.items()
        agents = {name: named("serve", str(worker.directory)) for name, worker in workers}
        counts = {
            f"agent of {name}": max(map(open_descriptors, pids)) for name, pids in agents.items() if pids
        }
        return {"gateway": open_descriptors(self._world.gateway.pid), **counts}

    def _leaks(self) -> list[str]:
        """The same work twice, with nobody in its way, takes no more the second time. (The first time it may:
        pools grow to what is used at a time.)"""
        self._burst()
        before = self._descriptors()
        self._burst()

        def more() -> list[str]:
            now = self._descriptors()
            return [
                f"{name}: {before.get(name, 0)}, then {count}"
                for name, count in now.items()
                if count > before.get(name, 0) + DESCRIPTOR_SLACK
            ]

        with contextlib.suppress(AssertionError):
            eventually(lambda: not more(), "descriptors are given back", self._settle_s)
        return more()

    def _burst(self) -> None:
        """Some commands per host, several at a time, and no connection kept."""
        sessions = [self._open_session(f"burst-{host}", host) for host in self._world.workers]
        with ThreadPoolExecutor(AGENTS) as pool:
            ended = list(pool.map(lambda session: session.run("echo x"), BURST * sessions))
        assert {answer["state"] for answer in ended} == {"exited"}
        self._world.caller.hang_up()


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def _reason(error: Exception) -> str:
    text = str(error)
    code = text.partition('"code":"')[2].partition('"')[0]
    return code or type(error).__name__
