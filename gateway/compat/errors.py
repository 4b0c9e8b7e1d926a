"""What a door has to tell that is not a refusal of the gateway.

Owns the exceptions that more than one door raises.
"""


class NotRun(Exception):
    """The command was never started; the message says why."""
