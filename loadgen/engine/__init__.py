"""The embedded engine: one model of vLLM V1's scheduler, two clocks, and vLLM's HTTP face.

``scheduler`` is the model, pure, over one of two KV stores: ``blocks``, with every block and its hash, or
``chains``, runs of blocks by name, which is fast. ``virtual`` runs it for the simulator, over chains, and
``realtime`` for HTTP clients, over blocks. ``tokens``, ``prompt``, ``script`` and ``answers`` decide what is
said, ``frontend``, ``shapes`` and ``app`` how it is asked for and sent. Step times come from
``backend_patch.step_time``.
"""
