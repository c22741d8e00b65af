"""How often somebody may ask: token buckets."""

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Final

_MOST: Final = 4096


class RateLimit:
    """A bucket of tokens for every key; each fills at a steady rate, and each request takes some out.

    Args:
        rate: tokens per second.
        burst: that a bucket holds, and begins with.
        clock: seconds, never going back.
        most: keys that are remembered; of more, those unheard of for longest begin with a full bucket again.

    Keys say who was here, so `sweep` forgets those whose bucket is full again, which makes no difference to anybody.
    """

    def __init__(
        self, rate: float, burst: float, *, clock: Callable[[], float] = time.monotonic, most: int = _MOST
    ) -> None:
        self._rate, self._burst, self._clock, self._most = rate, burst, clock, most
        self._buckets: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, key: Hashable, cost: float = 1.0) -> float:
        """Take tokens out; return 0, or in how many seconds there will be enough, with nothing taken."""
        now = self._clock()
        tokens, then = self._buckets.pop(key, (self._burst, now))
        tokens = min(self._burst, tokens + (now - then) * self._rate)
        enough = tokens >= cost
        self._buckets[key] = (tokens - cost if enough else tokens, now)
        while len(self._buckets) > self._most:
            self._buckets.popitem(last=False)
        return 0.0 if enough else (cost - tokens) / self._rate

    def sweep(self) -> None:
        """Forget the keys whose buckets are full again."""
        now = self._clock()
        for key, (tokens, then) in [*self._buckets.items()]:
            if tokens + (now - then) * self._rate >= self._burst:
                del self._buckets[key]
