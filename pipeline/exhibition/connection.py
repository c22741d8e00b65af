"""A browser's connection, closed when nothing comes over it: uvicorn waits for a first request for ever."""

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.h11_impl import H11Protocol

IDLE_SECONDS: Final = 15.0
"""Without an answer in the making, after which a connection is closed; a request has as long for its header."""


class Connection(H11Protocol):
    """uvicorn's protocol, with an end to idle connections, and with room for a new one when there are too many.

    A connection is idle while no answer is in the making: before its first request, between two, and while what is left
    of a refused one trickles in. Of more connections than uvicorn's `limit_concurrency`, the one that has been idle for
    longest is closed, so that who says nothing shuts nobody out.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._idle: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._look()
        self._make_room()

    def data_received(self, data: bytes) -> None:
        """Take a part of a request."""
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        """Begin to wait for the next request."""
        super().on_response_complete()
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._unset_idle()
        super().connection_lost(exc)

    @property
    def idle_until(self) -> float | None:
        """When it is closed, by the loop's clock; None while an answer is in the making."""
        return None if self._idle is None else self._idle.when()

    def _look(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._unset_idle()
        elif self._idle is None and not self.transport.is_closing():
            self._idle = self.loop.call_later(IDLE_SECONDS, self.transport.abort)

    def _unset_idle(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def _make_room(self) -> None:
        if self.limit_concurrency is None or len(self.connections) < self.limit_concurrency:
            return
        others = [one for one in self.connections if isinstance(one, Connection) and one is not self]
        idle = [(one.idle_until, one) for one in others if one.idle_until is not None]
        if idle:
            _, longest = min(idle, key=lambda pair: pair[0])
            self.connections.discard(longest)
            longest.transport.abort()
