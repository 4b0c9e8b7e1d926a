"""vLLM's offloading connector, with copies that take modelled time and move nothing.

The connector's scheduler half decides what is copied where and hands over jobs with each step; this is its
worker half. Loads begin at once. Stores begin when the step that computes their blocks has ended. A step
whose blocks are about to be reused waits for the stores that still read them (``jobs_to_flush``), as the
real worker does.
"""

from typing import Any

from backend_patch.emulator.host_link import Direction, HostLink
from backend_patch.emulator.settings import EmulatorSettings
from backend_patch.step_time import StepTime


class HostTier:
    def __init__(self, settings: EmulatorSettings, step_time: StepTime, block_tokens: int) -> None:
        seconds_per_token = step_time.host_copy_seconds(1, settings.host_bytes_per_s) / settings.speed
        self._link = HostLink(1 / seconds_per_token)
        self._block_tokens = block_tokens

    @property
    def loaded_tokens(self) -> int:
        return self._link.loaded_tokens

    @property
    def stored_tokens(self) -> int:
        return self._link.stored_tokens

    def take_orders(self, metadata: Any, now: float) -> float:
        """Start the loads; returns the time until which the step has to wait for stores."""
        if metadata is None:
            return 0.0
        if not hasattr(metadata, "load_jobs"):
            raise RuntimeError(
                f"the emulated accelerator moves no KV for {type(metadata).__name__}: "
                "use the native offloading connector (--kv-offloading-size)"
            )
        for job, order in metadata.load_jobs.items():
            self._link.start(now, job, order.req_id, Direction.LOAD, self._tokens(order.dst_spec))
        return self._flush(metadata, now)

    def start_stores(self, metadata: Any, computed_s: float) -> None:
        for job, order in metadata.store_jobs.items() if metadata is not None else ():
            self._link.start(computed_s, job, order.req_id, Direction.STORE, self._tokens(order.src_spec))

    def completed(self, now: float) -> Any:
        """A ``KVConnectorOutput`` of the jobs that ended, or None."""
        if not (done := self._link.finished(now)):
            return None
        from vllm.distributed.kv_transfer.kv_connector.v1.offloading.common import OffloadingWorkerMetadata
        from vllm.v1.outputs import KVConnectorOutput

        jobs = OffloadingWorkerMetadata()
        for transfer in done:
            jobs.mark_completed(transfer.job)
        loaded = {each.request_id for each in done if each.direction is Direction.LOAD}
        return KVConnectorOutput(finished_recving=loaded, kv_connector_worker_meta=jobs)

    def _flush(self, metadata: Any, now: float) -> float:
        jobs = metadata.jobs_to_flush or set()
        for job in jobs & metadata.store_jobs.keys():
            order = metadata.store_jobs.pop(job)
            self._link.start(now, job, order.req_id, Direction.STORE, self._tokens(order.src_spec))
        return self._link.ends_s(jobs)

    def _tokens(self, blocks: Any) -> int:
        return len(blocks.block_ids) * self._block_tokens
