"""Connections that do not wait for ever: who sends half a request keeps nobody else out."""

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

REQUEST_S = 10.0
"""In which a request has to arrive whole, however slowly it is sent [s] (chosen here)."""

RESPONSE_S = 120.0
"""In which a reply has to be taken in [s]: 30 s of sound over a bad network (chosen here)."""

MOST_IDLE = 32
"""Connections without a whole request; if there are more, the oldest is closed (chosen here)."""


class Connection(H11Protocol):
    """HTTP/1.1 as uvicorn has it, which waits for the next request and no longer for half of one.

    Args:
        request_s: In which a request has to arrive [s].
        keywords: As uvicorn gives them.
    """

    def __init__(self, *, request_s: float = REQUEST_S, **keywords: Any):
        super().__init__(**keywords)
        self.request_s = request_s
        self.since = self.loop.time()
        self._deadline: asyncio.TimerHandle | None = None

    @property
    def idle(self) -> bool:
        """Whether a whole request is still to come."""
        return self.conn.their_state in (h11.IDLE, h11.SEND_BODY)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        others = [
            each
            for each in self.connections
            if isinstance(each, Connection)  # and no web socket
            and each is not self
            and each.idle
            and not each.transport.is_closing()
        ]
        if len(others) >= MOST_IDLE:
            min(others, key=lambda each: each.since).transport.abort()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwatch()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self.since = self.loop.time()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._watch()

    def _watch(self) -> None:
        """Close the connection in time, if it is the other side that is waited for."""
        slow_s = RESPONSE_S if self.flow.write_paused else self.request_s if self.idle else None
        if slow_s is None:
            self._unwatch()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(slow_s, self.transport.abort)

    def _unwatch(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
