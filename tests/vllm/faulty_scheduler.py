"""``--scheduler-cls tests.vllm.faulty_scheduler.make_scheduler``: the patch, with errors in it on demand.

A turn of the session ``FAULT`` meets an error of the patch's, in the middle of a step's hook. One of the
session ``REJECTED`` is ended by vLLM itself, as when a token breaks its grammar.
"""

from typing import Any

from backend_patch.protocol import XArg

FAULT = "fault"
REJECTED = "rejected"


class InjectedError(Exception):
    pass


def make_scheduler(**arguments: Any) -> Any:
    from backend_patch import vllm_scheduler  # here only, so that the names above can be had without vLLM

    scheduler: Any = vllm_scheduler.make_scheduler(**arguments)
    retention, grammars = scheduler.mars.retention, scheduler.structured_output_manager
    scheduled, accept_tokens = retention.scheduled, grammars.accept_tokens

    def fail_on_demand(record: Any, *rest: Any) -> None:
        if record.key[0] == FAULT:
            raise InjectedError
        scheduled(record, *rest)

    def reject_on_demand(request: Any, tokens: Any) -> Any:
        session = (request.sampling_params.extra_args or {}).get(XArg.SESSION)
        return session != REJECTED and accept_tokens(request, tokens)

    retention.scheduled = fail_on_demand
    grammars.accept_tokens = reject_on_demand
    return scheduler
