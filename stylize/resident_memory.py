"""How much memory this process takes at its peak, as the system sees it."""

import re
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def peak_growth(work: Callable[[], T]) -> tuple[T, int | None]:
    """Do some work; return its result, and by how many bytes the resident memory had grown at its peak meanwhile.

    None where the system does not say (elsewhere than on Linux).
    """
    try:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as reset:
            reset.write("5")  # the peak begins anew at what is resident now
    except OSError:
        return work(), None
    before = _status("VmRSS")
    result = work()
    peak = _status("VmHWM")
    return result, None if before is None or peak is None else max(0, peak - before)


def _status(field: str) -> int | None:
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            found = re.search(rf"^{field}:\s+(\d+) kB", file.read(), re.MULTILINE)
    except OSError:
        return None
    return None if found is None else int(found[1]) * 1024
