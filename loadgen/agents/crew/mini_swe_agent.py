"""One task of mini-swe-agent, by its documented API: its default agent, configuration and model class.

Commands run in its local environment or, with a shell, in its docker environment, whose executable that is.
"""

import os

import yaml
from minisweagent import __version__
from minisweagent.agents.default import DefaultAgent
from minisweagent.config import builtin_config_dir
from minisweagent.environments.docker import DockerEnvironment
from minisweagent.environments.local import LocalEnvironment
from minisweagent.models.litellm_model import LitellmModel

from loadgen.agents.crew.orders import Order

CONFIGURATION = "mini.yaml"


def version() -> str:
    return str(__version__)


def play(order: Order) -> str | None:
    config = yaml.safe_load((builtin_config_dir / CONFIGURATION).read_text(encoding="utf-8"))
    model = LitellmModel(
        **config.get("model", {})
        | {
            "model_name": f"openai/{order.model}",
            "model_kwargs": {
                "api_base": order.base_url,
                "api_key": order.api_key,
                "timeout": order.timeout_s,
            },
            "cost_tracking": "ignore_errors",
        }
    )
    agent = DefaultAgent(model, environment_of(order), **agent_settings(config["agent"], order))
    outcome = agent.run(order.task)
    status = outcome.get("exit_status")
    return None if status == "Submitted" else f"exit status {status}"


def agent_settings(configured: dict[str, object], order: Order) -> dict[str, object]:
    """The file has settings of the interactive agent too, which the default one does not know."""
    templates = {name: configured[name] for name in ("system_template", "instance_template")}
    return {**templates, "step_limit": order.max_steps, "cost_limit": 0.0}


def environment_of(order: Order) -> LocalEnvironment | DockerEnvironment:
    timeout_s = int(order.timeout_s)
    if order.shell is None:
        return LocalEnvironment(cwd=order.workspace, timeout=timeout_s)
    return DockerEnvironment(
        image="none",
        executable=os.fspath(order.shell),
        cwd=order.workspace,
        timeout=timeout_s,
        run_args=["-v", f"{order.workspace}:{order.workspace}"],
    )
