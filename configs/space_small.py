"""A space for MiniLM and MobileNetV2 on a CPU: which layers meet, how often, how wide.

python -m fusion_keras.search --space=configs/space_small.py --budget_ms=3
"""


def get_space():
    return {
        # How many places where the modalities meet, and how they are joined there.
        "junctions": (1, 2, 3),
        "joins": ("concat", "linear", "add", "gate", "attention"),
        # Behind which layers of MiniLM and which blocks of MobileNetV2.
        "taps.text": (1, 2, 3, 4, 5, 6),
        "taps.image": (2, 4, 6, 8, 10, 12, 14, 16),
        # The joint network.
        "fusion.width": (64, 128, 256),
        "fusion.blocks": (1, 2, 4),
        "fusion.tokens": ("pooled", "sequence"),
        "fusion.grid": (2, 4),
    }
