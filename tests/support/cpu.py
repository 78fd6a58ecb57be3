"""What a test wants of the processor."""

import re

import pytest

from fusion_keras.exported import sums_int8

# As an export and a predictor say it.
CUTS_OFF = re.compile("VNNI (and )?cuts off sums of int8 products")


def needs_int8() -> None:
    """Skip a test of what int8 costs where the processor adds to it."""
    if not sums_int8():
        pytest.skip("this CPU has no VNNI and cuts off sums of int8 products")
