"""What a step costs the machine when the accelerator is emulated, and how short a modelled step may be.

    PYTHONPATH=. .venv-vllm/bin/python tests/bench/emulated_steps.py

For speeds, stream intervals and numbers of running requests, per step: modelled time and time passed, which
part where the machine does not keep up; CPU time of the engine's process, of the executor in it and of the
API server. Clients read raw sockets, so that they cost little, but they and everything else share the cores.
"""

import argparse
import asyncio
import json
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from backend_patch.emulator.device import DeviceReport
from backend_patch.emulator.launch import LaunchOptions
from backend_patch.emulator.serve import EmulatedServer
from backend_patch.emulator.tiny_model import write_tiny_model

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
MODEL = "emulated"
SETTLE_S = 0.3
"""Until the engine has written its last report."""


@dataclass(frozen=True)
class Spent:
    report: DeviceReport
    api_cpu_s: float


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--running", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--stream-interval", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--speed", type=float, nargs="+", default=[1.0, 5.0])
    parser.add_argument("--tokens", type=int, default=300)
    parser.add_argument("--patch", action="store_true")
    args = parser.parse_args()
    heads = "".join(f"{head:>10}" for head in ("model_ms", "wall_ms", "engine_ms", "exec_ms", "api_ms"))
    print(f" speed interval running{heads}    late  behind_s")  # noqa: T201
    with tempfile.TemporaryDirectory() as folder:
        write_tiny_model(Path(folder))
        for interval in args.stream_interval:
            for speed in args.speed:
                options = LaunchOptions(
                    port=0,
                    served_model_name=MODEL,
                    kv_tokens=262_144,
                    stream_interval=interval,
                    speed=speed,
                    patch=args.patch,
                )
                with EmulatedServer(Path(folder), options) as server:
                    for running in args.running:
                        _row(server, speed, interval, running, args.tokens)


def _row(server: EmulatedServer, speed: float, interval: int, running: int, tokens: int) -> None:
    asyncio.run(_crowd(server.url, running, 20))  # warm
    before = _spent(server)
    began_s = time.monotonic()
    asyncio.run(_crowd(server.url, running, tokens))
    wall_s = time.monotonic() - began_s
    after = _spent(server)
    a, b = after.report, before.report
    steps = a.steps - b.steps
    per_step_s = (
        a.busy_s - b.busy_s,
        wall_s,
        a.engine_cpu_s - b.engine_cpu_s,
        a.executor_cpu_s - b.executor_cpu_s,
        after.api_cpu_s - before.api_cpu_s,
    )
    milliseconds = "".join(f"{1000 * each / steps:10.2f}" for each in per_step_s)
    late = f"{(a.late_steps - b.late_steps) / steps:8.2f}{a.behind_s - b.behind_s:10.2f}"
    print(f"{speed:6.1f}{interval:9d}{running:8d}{milliseconds}{late}", flush=True)  # noqa: T201


def _spent(server: EmulatedServer) -> Spent:
    time.sleep(SETTLE_S)
    report = server.report()
    assert report is not None
    assert server.process is not None
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
    return Spent(report, (int(fields[11]) + int(fields[12])) * TICK_S)


async def _crowd(url: str, running: int, tokens: int) -> None:
    async with asyncio.TaskGroup() as group:
        for number in range(running):
            group.create_task(_stream(url, number, tokens))


async def _stream(url: str, number: int, tokens: int) -> None:
    host, port = url.removeprefix("http://").split(":")
    body = {"model": MODEL, "prompt": [300 + number, 5, 6, 7], "stream": True}
    body |= {"max_tokens": tokens, "ignore_eos": True}
    content = json.dumps(body).encode()
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {len(content)}\r\nConnection: close\r\n\r\n"
    writer.write(head.encode() + content)
    answer = b""
    while part := await reader.read(1 << 16):
        answer = (answer + part)[-200:]
    assert b"[DONE]" in answer, answer
    writer.close()
    await writer.wait_closed()


if __name__ == "__main__":
    main()
