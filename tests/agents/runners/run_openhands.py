"""Runs agents of OpenHands' SDK in its own environment: `python run_openhands.py JOB.json`."""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from openhands.sdk import LLM, Agent, Conversation, Tool
from openhands.sdk.context.condenser import LLMSummarizingCondenser
from openhands.tools.file_editor import FileEditorTool
from openhands.tools.preset.default import register_builtins_agents
from openhands.tools.task import TaskToolSet
from openhands.tools.terminal import TerminalTool


def run(job, task):
    llm = LLM(
        model=f"openai/{job['model']}",
        base_url=job["base_url"],
        api_key="unused",
        usage_id="agent",
        stream=job["is_streaming"],
        retry_min_wait=0,
        retry_max_wait=1,
    )
    tools = [
        Tool(name=TerminalTool.name, params={"terminal_type": "subprocess", **job.get("terminal", {})}),
        Tool(name=FileEditorTool.name),
    ]
    if job.get("has_sub_agents"):
        tools.append(Tool(name=TaskToolSet.name))
    condenser = None
    if "condense_after" in job:
        condenser = LLMSummarizingCondenser(llm=llm, max_size=job["condense_after"], keep_first=2)
    conversation = Conversation(
        agent=Agent(llm=llm, tools=tools, condenser=condenser),
        workspace=task["folder"],
        visualizer=None,
        token_callbacks=[lambda chunk: None] if job["is_streaming"] else None,
    )
    try:
        conversation.send_message(task["prompt"])
        conversation.run()
        return conversation.state.execution_status.value
    finally:
        conversation.close()


def main():
    job = json.loads(Path(sys.argv[1]).read_text())
    if job.get("has_sub_agents"):
        register_builtins_agents()
    with ThreadPoolExecutor(len(job["tasks"])) as pool:
        ends = list(pool.map(lambda task: run(job, task), job["tasks"]))
    sys.exit(None if set(ends) == {"finished"} else f"ends: {ends}")


main()
