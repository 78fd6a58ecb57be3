"""The one exception that stands for a user error."""


class UsageError(Exception):
    """Bad input: the message says what was got, what was wanted and what to do.

    Entry modules print the message as one sentence and exit with code 2; it never
    reaches the user as a traceback.
    """
