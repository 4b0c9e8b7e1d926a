"""Runs agents of OpenAI's Agents SDK in its own environment: `python run_openai_agents.py JOB.json`."""

import asyncio
import json
import sys
from pathlib import Path

from agents import (
    Agent,
    Runner,
    function_tool,
    set_default_openai_api,
    set_default_openai_client,
    set_tracing_disabled,
)
from gateway_bash import GatewayBash
from openai import AsyncOpenAI


async def run(job, task):
    shell = await asyncio.to_thread(GatewayBash, job["gateway_url"], task["name"])

    @function_tool
    async def bash(command: str) -> str:
        """Run a shell command."""
        return await asyncio.to_thread(shell.run, command)

    agent = Agent(name="Engineer", instructions="You mend code.", model=job["model"], tools=[bash])
    try:
        if not job["is_streaming"]:
            return (await Runner.run(agent, task["prompt"])).final_output
        streamed = Runner.run_streamed(agent, task["prompt"])
        async for _event in streamed.stream_events():
            pass
        return streamed.final_output
    finally:
        await asyncio.to_thread(shell.close)


async def main(job):
    set_tracing_disabled(True)
    set_default_openai_api(job["api"])
    if "max_retries" in job:
        set_default_openai_client(AsyncOpenAI(max_retries=job["max_retries"]))
    ends = await asyncio.gather(*(run(job, task) for task in job["tasks"]))
    sys.exit(None if set(ends) == {"Mended."} else f"ends: {ends}")


asyncio.run(main(json.loads(Path(sys.argv[1]).read_text())))
