"""Agents on SWE-ReX, SWE-agent's execution layer, in its own environment: `python run_swe_rex.py JOB.json`.

It is not SWE-agent: a loop as short as can be, which does what SWE-agent 1.1 does on both of its sides.
The model gets the same kind of requests by litellm: blocks of text, its user agent, a ``cache_control``
that moves to the last message. Commands go to one shell of a remote runtime by SWE-ReX' own client, and
after each of them its state is asked for. It does no streaming, as SWE-agent does none.
"""

import asyncio
import json
import sys
from pathlib import Path

import litellm
from swerex.deployment.remote import RemoteDeployment
from swerex.runtime.abstract import BashAction, CreateBashSessionRequest

SYSTEM = "You are a helpful assistant that can interact with a computer to solve tasks."
SET_UP = "export LANG=C.UTF-8 && export PAGER=cat && export GIT_PAGER=cat"
STATE = "pwd"
COMMAND_TIMEOUT_S = 120
SILENT = "Your command ran successfully and did not produce any output."


def tool(name, description, **properties):
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    function = {"name": name, "description": description, "parameters": parameters}
    return {"type": "function", "function": function}


TOOLS = [
    tool(
        "bash",
        "runs the given command directly in bash",
        command={"type": "string", "description": "The bash command to execute."},
    ),
    tool("submit", "submits the current file"),
]


def blocks(text):
    return [{"type": "text", "text": text}]


class Agent:
    def __init__(self, job, task, runtime):
        self._job = job
        self._runtime = runtime
        self._messages = [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": blocks(task["prompt"])},
        ]

    async def run(self):
        while True:
            call = await self._ask()
            if call.function.name == "submit":
                return "submitted"
            command = json.loads(call.function.arguments)["command"]
            self._tell(call.id, await self._shell(command))
            await self._shell(STATE)

    async def set_up(self):
        await self._runtime.create_session(CreateBashSessionRequest())
        await self._shell(SET_UP)

    async def _shell(self, command):
        action = BashAction(command=command, timeout=COMMAND_TIMEOUT_S, check="silent")
        return (await self._runtime.run_in_session(action)).output

    async def _ask(self):
        answer = await litellm.acompletion(
            model=f"openai/{self._job['model']}",
            api_base=self._job["base_url"],
            messages=self._messages,
            tools=TOOLS,
            temperature=0.0,
            top_p=1.0,
            extra_headers={"User-Agent": "swe-agent/1.1.0"},
        )
        said = answer.choices[0].message
        calls = [call.model_dump() for call in said.tool_calls]
        self._messages.append({"role": "assistant", "content": said.content, "tool_calls": calls})
        return said.tool_calls[0]

    def _tell(self, call_id, output):
        for message in self._messages:
            message.pop("cache_control", None)
        content = blocks(f"OBSERVATION:\n{output}" if output else SILENT)
        told = {"role": "tool", "content": content, "tool_call_id": call_id}
        self._messages.append({**told, "cache_control": {"type": "ephemeral"}})


async def run(job, task):
    host = f"{job['gateway_url']}/compat/swerex/{task['name']}"
    deployment = RemoteDeployment(host=host, port=None, auth_token="unused")
    await deployment.start()
    try:
        agent = Agent(job, task, deployment.runtime)
        await agent.set_up()
        return await agent.run()
    finally:
        await deployment.stop()


async def main(job):
    ends = await asyncio.gather(*(run(job, task) for task in job["tasks"]))
    sys.exit(None if set(ends) == {"submitted"} else f"ends: {ends}")


asyncio.run(main(json.loads(Path(sys.argv[1]).read_text())))
