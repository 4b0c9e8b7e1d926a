"""Several processes on one port that share all state, and the parent that keeps them.

The parent (``supervisor``) serves nothing: it starts workers, orders their records (``record_order``), starts
them again when they die, and ends them. A worker (``worker``) is a whole proxy whose journal (``journal``) is
a socket to the parent. The socket is a pair made before the worker starts: it has no name in any file system,
nobody else can connect, and its end is how each side learns that the other is gone.
"""
