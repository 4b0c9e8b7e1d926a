"""Runs LangChain's agents on LangGraph in their own environment: `python run_langgraph.py JOB.json`."""

import asyncio
import json
import sys
from pathlib import Path

from gateway_bash import GatewayBash
from langchain.agents import create_agent
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI


async def run(job, task):
    shell = await asyncio.to_thread(GatewayBash, job["gateway_url"], task["name"])

    @tool
    async def bash(command: str) -> str:
        """Run a shell command."""
        return await asyncio.to_thread(shell.run, command)

    patience = {name: job[name] for name in ("max_retries",) if name in job}
    model = ChatOpenAI(model=job["model"], streaming=job["is_streaming"], **patience)
    agent = create_agent(model, tools=[bash], system_prompt="You mend code.")
    asked = {"messages": [{"role": "user", "content": task["prompt"]}]}
    try:
        state = await agent.ainvoke(asked, {"configurable": {"thread_id": task["name"]}})
        return state["messages"][-1].content
    finally:
        await asyncio.to_thread(shell.close)


async def main(job):
    ends = await asyncio.gather(*(run(job, task) for task in job["tasks"]))
    sys.exit(None if set(ends) == {"Mended."} else f"ends: {ends}")


asyncio.run(main(json.loads(Path(sys.argv[1]).read_text())))
