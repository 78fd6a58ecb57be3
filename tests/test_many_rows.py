"""Tables of many rows: what a row costs in memory, and that nothing is read twice."""

import pytest

from tests.support.many_rows import make, measured

MIB = 2**20


@pytest.mark.slow
def test_a_row_costs_little_memory_and_a_second_load_little_work(tmp_path):
    make(tmp_path / "few", 1000)
    make(tmp_path / "many", 20_000)
    # The start of the program is in both.
    base = measured(tmp_path / "few")["stages"]["load"]
    first = measured(tmp_path / "many")["stages"]["load"]
    again = measured(tmp_path / "many")["stages"]["load"]
    assert (first["peak"] - base["peak"]) * MIB / 19_000 < 3500
    assert (again["peak"] - base["peak"]) * MIB / 19_000 < 1800
    assert again["cpu"] < first["cpu"]


@pytest.mark.slow
@pytest.mark.large
def test_a_million_rows_are_loaded(tmp_path):
    make(tmp_path / "rows", 1_000_000)
    loads = [measured(tmp_path / "rows") for _ in range(2)]
    assert [load["rows"] for load in loads] == [1_000_000] * 2
    assert loads[0]["fingerprint"] == loads[1]["fingerprint"]
    assert max(load["stages"]["fingerprint"]["peak"] for load in loads) < 4096
    again = loads[1]["stages"]
    assert again["load"]["cpu"] + again["fingerprint"]["cpu"] < 15
