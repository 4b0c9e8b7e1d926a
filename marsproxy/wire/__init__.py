"""Reading requests and answers of the four tracked APIs without changing a byte of them.

On the way in: ``requests`` takes a light parse of a body (``bodies`` its members and history, ``session_ids``
the ids that clients send, ``prompts`` the segments of a text prompt). ``normal`` says which messages are the
same, ``forms`` remembers it, ``call_ids`` says which tool-call ids can name a session.

On the way out: ``answers`` reads an answer on the side (``answer_*`` one API each), ``sse`` knows events.

``splice`` adds the documented members to the original bytes, and ``usage_stripper`` takes the traces of that
out of the answer. Nothing in here does input or output, and nothing raises on what comes from outside.
"""
