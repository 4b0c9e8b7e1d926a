"""``--scheduler-cls tests.vllm.faulty_scheduler.make_scheduler``: the patch, with an error in it on demand.

The error is in the middle of a step's hook, once a turn of the session of that name is scheduled.
"""

from typing import Any

from backend_patch import vllm_scheduler

FAULT = "fault"


class InjectedError(Exception):
    pass


def make_scheduler(**arguments: Any) -> Any:
    scheduler: Any = vllm_scheduler.make_scheduler(**arguments)
    retention = scheduler.mars.retention
    scheduled = retention.scheduled

    def fail_on_demand(record: Any, *rest: Any) -> None:
        if record.key[0] == FAULT:
            raise InjectedError
        scheduled(record, *rest)

    retention.scheduled = fail_on_demand
    return scheduler
