"""Runs agents of smolagents in its own environment: `python run_smolagents.py JOB.json`."""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gateway_bash import GatewayBash
from smolagents import CodeAgent, OpenAIModel, ToolCallingAgent, tool

AGENTS = {"code": CodeAgent, "tool_calling": ToolCallingAgent}


def run(job, task):
    shell = GatewayBash(job["gateway_url"], task["name"])

    @tool
    def bash(command: str) -> str:
        """Run a shell command.

        Args:
            command: What to run.
        """
        return shell.run(command)

    model = OpenAIModel(model_id=job["model"], api_base=job["base_url"], api_key="unused")
    agent = AGENTS[job["agent"]](
        tools=[bash], model=model, stream_outputs=job["is_streaming"], verbosity_level=0
    )
    try:
        return agent.run(task["prompt"])
    finally:
        shell.close()


def main():
    job = json.loads(Path(sys.argv[1]).read_text())
    with ThreadPoolExecutor(len(job["tasks"])) as pool:
        ends = list(pool.map(lambda task: run(job, task), job["tasks"]))
    sys.exit(None if set(ends) == {"Mended."} else f"ends: {ends}")


main()
