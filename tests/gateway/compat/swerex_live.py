"""The real client of SWE-ReX against a gateway that runs, and what came of it as JSON on standard output.

Run by a Python that has ``swe-rex``: ``python swerex_live.py URL TOKEN``, where URL is that of the gateway.
It must not import anything of ours.
"""

import asyncio
import json
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

import aiohttp
from swerex.exceptions import BashIncorrectSyntaxError, CommandTimeoutError, NonZeroExitCodeError
from swerex.runtime.abstract import (
    BashAction,
    BashInterruptAction,
    CloseBashSessionRequest,
    Command,
    CreateBashSessionRequest,
    ReadFileRequest,
    UploadRequest,
    WriteFileRequest,
)
from swerex.runtime.remote import RemoteRuntime


async def shell(runtime: RemoteRuntime) -> dict[str, Any]:
    await runtime.create_session(
        CreateBashSessionRequest(startup_source=["/root/.bashrc"], startup_timeout=10)
    )
    setting = "cd /tmp && export FOO=1 && BAR=2 && f() { echo f$1; }; alias g='echo g'"
    await runtime.run_in_session(BashAction(command=setting, check="silent"))
    seen = await runtime.run_in_session(
        BashAction(command="pwd; echo $FOO$BAR; f 3; g; exit 7", check="silent")
    )
    alive = await runtime.run_in_session(BashAction(command="pwd"))
    return {"output": seen.output, "exit_code": seen.exit_code, "after": alive.output}


async def errors(runtime: RemoteRuntime) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, kind, action in (
        ("timeout", CommandTimeoutError, BashAction(command="echo before; sleep 60; echo LATE", timeout=1)),
        ("syntax", BashIncorrectSyntaxError, BashAction(command="if then")),
        ("non_zero", NonZeroExitCodeError, BashAction(command="echo out; false", error_msg="wanted")),
    ):
        try:
            await runtime.run_in_session(action)
        except kind as error:
            found[name] = {"message": str(error), "extra_info": error.extra_info}
    after = await runtime.run_in_session(BashAction(command="echo next", check="silent"))
    found["after"] = after.output
    try:
        await runtime.read_file(ReadFileRequest(path="/tmp/none"))
    except FileNotFoundError as error:
        found["no_file"] = str(error)
    return found


async def files(runtime: RemoteRuntime) -> dict[str, Any]:
    await runtime.write_file(WriteFileRequest(path="/root/deep/state.json", content='{"a": "ü"}'))
    read = await runtime.read_file(ReadFileRequest(path="/root/deep/state.json"))
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "repo"
        (source / "sub").mkdir(parents=True)
        (source / "sub" / "a.py").write_text("print('a')\n")
        await runtime.upload(UploadRequest(source_path=str(source), target_path="/swearepo"))
        await runtime.upload(
            UploadRequest(source_path=str(source / "sub" / "a.py"), target_path="/root/b.py")
        )
    ran = await runtime.execute(
        Command(command="python3 sub/a.py; python3 /root/b.py", shell=True, cwd="/swearepo")
    )
    words = await runtime.execute(Command(command=["sh", "-c", "echo out; echo err >&2; exit 3"]))
    return {"read": read.content, "ran": ran.stdout, "words": words.model_dump()}


async def two_at_once(runtime: RemoteRuntime) -> dict[str, Any]:
    await runtime.create_session(CreateBashSessionRequest(session="other"))
    meet = "touch /tmp/{mine}; until [ -e /tmp/{other} ]; do sleep 0.05; done; echo met"
    seen = await asyncio.gather(
        runtime.run_in_session(BashAction(command=meet.format(mine="a", other="b"), timeout=30)),
        runtime.run_in_session(
            BashAction(command=meet.format(mine="b", other="a"), session="other", timeout=30)
        ),
    )
    await runtime.close_session(CloseBashSessionRequest(session="other"))
    return {"outputs": [each.output for each in seen]}


async def interrupted(runtime: RemoteRuntime) -> dict[str, Any]:
    running = asyncio.gather(
        runtime.run_in_session(BashAction(command="echo begun; touch /tmp/begun; sleep 60", check="silent"))
    )
    waiting = "until [ -e /tmp/begun ]; do sleep 0.05; done"
    await runtime.execute(Command(command=waiting, shell=True, timeout=30))
    seen = await runtime.run_in_session(BashInterruptAction(timeout=5))
    [ended] = await running
    return {"seen": seen.output, "exit_code": ended.exit_code}


async def retried(url: str, token: str) -> dict[str, Any]:
    """The same request twice at once, as a client would that lost its connection."""
    body = BashAction(command="echo ran >>/tmp/runs; sleep 0.5; wc -l </tmp/runs").model_dump()
    headers = {"X-API-Key": token, "X-Request-ID": str(uuid.uuid4())}
    async with aiohttp.ClientSession(headers=headers) as http:

        async def ask() -> Any:
            async with http.post(f"{url}/run_in_session", json=body) as answer:
                return (await answer.json())["output"].strip()

        return {"outputs": [*(await asyncio.gather(ask(), ask())), await ask()]}


async def main(gateway_url: str, token: str) -> None:
    url = f"{gateway_url}/compat/swerex/live-{uuid.uuid4().hex[:8]}"
    runtime = RemoteRuntime(host=url, port=None, auth_token=token)
    steps: dict[str, Any] = {"alive": bool(await runtime.is_alive())}
    for step in (shell, errors, files, two_at_once, interrupted):
        began_s = time.monotonic()
        steps[step.__name__] = await step(runtime)
        steps[step.__name__]["took_s"] = round(time.monotonic() - began_s, 2)
    steps["retried"] = await retried(url, token)
    await runtime.close()
    sys.stdout.write("RESULT " + json.dumps(steps) + "\n")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
