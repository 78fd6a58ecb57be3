"""Memory in pages of two megabytes, where Linux gives them to who asks.

XLA's CPU code takes its working memory afresh for every step, and Linux hands it out in pages of
4 kB: for MobileNetV2 at 96 px, batch 32, 78,000 page faults a step, a fifth of its time. The GNU C
library asks for large pages only if told so before the program starts.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

_TUNABLES = "GLIBC_TUNABLES"
_ASK = "glibc.malloc.hugetlb"
_SYSTEM = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def environment(of: Mapping[str, str], system: Path = _SYSTEM) -> dict[str, str]:
    """The environment of a program that asks for large pages; as it is where that changes nothing.

    Args:
        of: an environment. If it sets `glibc.malloc.hugetlb` itself, that stands.
        system: the kernel's setting: "[madvise]" in it means large pages for who asks.
    """
    tunables = of.get(_TUNABLES, "")
    on_request = system.is_file() and "[madvise]" in system.read_text()
    if not on_request or _ASK in tunables:
        return dict(of)
    return {**of, _TUNABLES: ":".join(filter(None, [tunables, f"{_ASK}=1"]))}


def without(of: Mapping[str, str]) -> dict[str, str]:
    """The environment of a program that is to run as without `restart_with`."""
    kept = [t for t in of.get(_TUNABLES, "").split(":") if t and t != f"{_ASK}=1"]
    others = {name: value for name, value in of.items() if name != _TUNABLES}
    return {**others, _TUNABLES: ":".join(kept)} if kept else others


def restart_with() -> None:
    """Start this program again, in the same process, if it does not ask for large pages yet."""
    changed = environment(os.environ)
    if changed != dict(os.environ):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], changed)
