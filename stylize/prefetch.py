"""Load items ahead of their use in a background thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")


def prefetch(
    items: Iterable[Item], load: Callable[[Item], Loaded], *, depth: int = 8, threads: int = 1
) -> Generator[tuple[Item, Loaded]]:
    """Yield (item, load(item)) in order, with up to `depth` items loaded or being loaded ahead.

    An exception of `load` is raised where its item would have been yielded. Closing the generator waits for the loads
    under way and starts no more.
    """
    source = iter(items)
    with ThreadPoolExecutor(threads, thread_name_prefix="prefetch") as pool:
        ahead: deque[tuple[Item, Future[Loaded]]] = deque()
        try:
            for item in source:
                ahead.append((item, pool.submit(load, item)))
                if len(ahead) > depth:
                    first, future = ahead.popleft()
                    yield first, future.result()
            while ahead:
                first, future = ahead.popleft()
                yield first, future.result()
        finally:
            for _, future in ahead:
                future.cancel()
