"""Tool-execution gateway: runs commands for agents behind a queue for CPU slots.

The way of one command, module by module: ``routes`` reads the request into a ``protocol`` type;
``sessions`` knows the workspace it runs in; ``execs`` keeps its record and walks it through its
states, asking ``slots`` (pure) when it may start and a ``runner`` to run it; ``local_runner`` starts
the process group whose output ``spool`` moves to capped files; ``reporting`` tells the proxy.
"""
