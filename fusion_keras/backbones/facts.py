"""What is known of a backbone before it is loaded."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Facts:
    """What a named variant must know of a backbone.

    Attributes:
        num_depths: its greatest depth.
        scales: whether the depths of named variants, written for 12 layers, scale to its own.
        width: of its layers' outputs, where all have the same; else 0.
        lacks_last: why it has no depth `last`, the head of a sentence; "" where it has.
    """

    num_depths: int
    scales: bool = True
    width: int = 0
    lacks_last: str = ""
