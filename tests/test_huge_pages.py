"""A program asks for large pages where that helps, once, and keeps what the user has set."""

import subprocess
import sys

import pytest

from fusion_keras.huge_pages import environment


@pytest.fixture
def system(tmp_path):
    def write(text):
        path = tmp_path / "enabled"
        path.write_text(text)
        return path

    return write


def test_it_is_asked_for_where_linux_waits_to_be_asked(system):
    found = environment({"HOME": "/h"}, system("always [madvise] never"))
    assert found == {"HOME": "/h", "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


@pytest.mark.parametrize("setting", ["[always] madvise never", "always madvise [never]"])
def test_nothing_is_asked_for_where_it_would_change_nothing(system, setting):
    assert environment({"HOME": "/h"}, system(setting)) == {"HOME": "/h"}
    assert environment({}, system(setting).with_name("absent")) == {}


def test_other_tunables_are_kept_and_the_users_own_choice_stands(system):
    asked = system("always [madvise] never")
    other = environment({"GLIBC_TUNABLES": "glibc.malloc.arena_max=1"}, asked)
    assert other["GLIBC_TUNABLES"] == "glibc.malloc.arena_max=1:glibc.malloc.hugetlb=1"
    own = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"}
    assert environment(own, asked) == own
    assert environment(other, asked) == other


def test_the_program_starts_again_once_with_its_arguments(system, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import os, sys\n"
        "from pathlib import Path\n"
        "from fusion_keras import huge_pages\n"
        f"enabled = Path({str(system('always [madvise] never'))!r})\n"
        "huge_pages.environment.__defaults__ = (enabled,)\n"
        "print('start', os.getpid(), flush=True)\n"
        "huge_pages.restart_with()\n"
        "print(sys.argv[1:], os.environ['GLIBC_TUNABLES'], os.getpid())\n"
    )
    command = [sys.executable, str(program), "--name=a b", ""]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, env={})
    first, second, last = answer.stdout.splitlines()
    assert first == second
    assert last == f"['--name=a b', ''] glibc.malloc.hugetlb=1 {first.split()[1]}"
