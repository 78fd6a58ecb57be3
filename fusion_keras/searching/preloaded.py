"""What every training of a search imports, once, and without TensorFlow's start-up lines.

By the process that they are forked from. By itself that lives on, behind a search that is killed,
as long as one of them does; and one that stands still does not end.
"""

import signal

from fusion_keras import cli, interrupts

interrupts.end_with_parent(signal.SIGKILL)
with cli.quiet_native_logs():
    import fusion_keras.searching.training  # noqa: F401
