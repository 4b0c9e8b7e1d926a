"""Several replicas on one state: the journal in Redis, and what goes with it.

- ``record_codec``: a record as bytes; ``checkpoint_codec``: a whole state as bytes; ``fingerprint``: who may
  share one.
- ``redis_url``: from a URL to clients; ``scripts``: what runs inside Redis; ``log``: both behind typed calls.
- ``outbox``: what was appended here and has no place in the order yet; ``redis_journal``: the ``Journal``.
- ``status``: what there is to see of it.

Nothing in here knows what a record means, but for those about members.
"""
