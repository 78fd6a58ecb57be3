"""What ends a command in a sentence."""


class BenchError(Exception):
    """What the user can fix; the message says what was got, what is wanted, what to do."""
