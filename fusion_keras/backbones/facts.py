"""What is known of a backbone before it is loaded."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Facts:
    """What a named variant must know of a backbone.

    Attributes:
        num_depths: its greatest depth.
        out_of: how many depths the named variants' are counted out of, before they are scaled to
            its own: 12 encoder layers, or 16 blocks of a convolutional network.
        width: of its layers' outputs, where all have the same; else 0.
        lacks_last: why it has no depth `last`, the head of a sentence; "" where it has.
        lacks_first: why its first token says nothing of the others, likewise; "" where it does.
    """

    num_depths: int
    out_of: int = 12
    width: int = 0
    lacks_last: str = ""
    lacks_first: str = ""
