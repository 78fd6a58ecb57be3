"""What ends a command in a sentence."""


class BenchError(Exception):
    """What the user can fix; the message says what was got, what is wanted, what to do."""


class InputError(BenchError):
    """What a model is given cannot be used: a picture, a recording, a cell, what is missing."""
