"""One task of the OpenHands SDK, by its documented API: an agent with its default tools, a local workspace.

The terminal is the SDK's own, on a pseudoterminal (``terminal_type`` ``subprocess``), so that the shell can
be chosen (``shell_path``); with a shell of one's own or without, it is the same terminal.
"""

from importlib.metadata import version as installed_version

from openhands.sdk import LLM, Agent, Conversation, Tool
from openhands.sdk.conversation.state import ConversationExecutionStatus
from openhands.tools.file_editor import FileEditorTool
from openhands.tools.task_tracker import TaskTrackerTool
from openhands.tools.terminal import TerminalTool
from pydantic import SecretStr

from loadgen.agents.crew.orders import Order

SESSION = "MARS_GATEWAY_SESSION"


def version() -> str:
    return installed_version("openhands-sdk")


def play(order: Order) -> str | None:
    conversation = Conversation(
        agent=agent_of(order),
        workspace=order.workspace,
        visualizer=None,
        max_iteration_per_run=order.max_steps,
    )
    try:
        conversation.send_message(order.task)
        conversation.run()
        status = conversation.state.execution_status
    finally:
        conversation.close()
    return None if status is ConversationExecutionStatus.FINISHED else f"the conversation is {status.value}"


def agent_of(order: Order) -> Agent:
    llm = LLM(
        usage_id="agent",
        model=f"openai/{order.model}",
        base_url=order.base_url,
        api_key=SecretStr(order.api_key),
        timeout=int(order.timeout_s),
        stream=order.stream,
    )
    terminal = {
        "terminal_type": "subprocess",
        # What a queue or a crowded machine delays is not to be taken for a command that hangs.
        "no_change_timeout_seconds": int(order.timeout_s),
        # A gateway's shim cannot tell apart agents that share a process, but by a name.
        **({"shell_path": order.shell, "env": {SESSION: order.session}} if order.shell else {}),
    }
    tools = [
        Tool(name=TerminalTool.name, params=terminal),
        Tool(name=FileEditorTool.name),
        Tool(name=TaskTrackerTool.name),
    ]
    return Agent(llm=llm, tools=tools)
