"""The one exception that stands for a user error."""


class UsageError(Exception):
    """Bad input: the message says what was got, what was wanted and what to do.

    Entry modules print the message as one sentence and exit with code 2; it never
    reaches the user as a traceback.
    """


class MachineError(UsageError):
    """Of a machine that measures or trains, not of the model that it was asked to: with another one
    it would be the same."""
