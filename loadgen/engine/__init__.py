"""The embedded engine: one model of vLLM V1's scheduler, two clocks, and vLLM's HTTP face.

``scheduler`` and ``blocks`` are the model, pure; ``virtual`` runs it for the simulator and ``realtime``
for HTTP clients. ``tokens``, ``prompt``, ``script`` and ``answers`` decide what is said, ``frontend``,
``shapes`` and ``app`` how it is asked for and sent. Step times come from ``backend_patch.step_time``.
"""
