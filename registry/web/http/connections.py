"""Connections of the server: how many there may be, and how long one may say nothing.

uvicorn waits for ever for a connection that sends nothing, and takes as many as there are file descriptors.
Here the one that has waited longest makes room for a new one, and what is not sent in time is closed. An answer
that is being made is never cut off.
"""

import asyncio
import logging
import resource
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from registry.web.http.sessions import client_of

REQUEST_SECONDS = 10.0
"""In which a request has to be there, up to its body, once its connection is open or the last answer given."""

BODY_SECONDS = 30.0
"""That a body may pause."""

MOST_CONNECTIONS, OF_ONE_CLIENT = 1000, 0.75
"""Connections in all, where file descriptors allow it, and the share of them that one address may have."""

RESERVED_FILES = 64  # for tables, uploads and jobs
MOST_PROBLEMS, MOST_REFUSED = 20, 600
"""Lines of the log a minute, about connections and about requests that were no success."""


@dataclass
class Connections:
    """The open connections of a server, and what they may do.

    Attributes:
        waiting: Those that are open, in order of when they began to wait.
    """

    most: int
    burst: int  # connections that are accepted before any is looked at
    waiting: dict["LimitedProtocol", None] = field(default_factory=dict)
    of_client: Counter[str] = field(default_factory=Counter)  # how many of them each address has

    @classmethod
    def within_file_limit(cls) -> "Connections":
        """As many as this process may have files, once it may have as many as the system allows it."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        allowed = hard if hard != resource.RLIM_INFINITY else 2**16
        if soft < allowed:
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(allowed, 2**16), hard))
        free = max(16, min(allowed, 2**16) - RESERVED_FILES)
        return cls(min(MOST_CONNECTIONS, free // 2), max(4, min(64, free // 10)))

    def protocol(self, *args: Any, **kwargs: Any) -> "LimitedProtocol":
        """The protocol of a new connection."""
        return LimitedProtocol(self, *args, **kwargs)

    def add(self, new: "LimitedProtocol") -> None:
        """Take a connection; the one of its client, or of all, that has waited longest makes room for it."""
        loop = asyncio.get_running_loop()
        self.waiting[new] = None
        self.of_client[new.address] += 1
        if len(self.waiting) == 1:
            loop.call_later(1.0, self.sweep)
        loop.call_soon(loop.call_soon, self._keep_within, new)  # once what it has sent already was read

    def remove(self, gone: "LimitedProtocol") -> None:
        """Forget a connection."""
        if gone in self.waiting:
            del self.waiting[gone]
            self.of_client[gone.address] -= 1
            if not self.of_client[gone.address]:
                del self.of_client[gone.address]

    def _keep_within(self, new: "LimitedProtocol") -> None:
        """Close the one that has waited longest; the newest where all others are being answered."""
        is_greedy = self.of_client[new.address] > max(1, self.most * OF_ONE_CLIENT)
        if is_greedy or len(self.waiting) > self.most:
            among = (one for one in self.waiting if one.address == new.address or not is_greedy)
            self._close(next((one for one in among if one.is_waiting), new))

    def _close(self, gone: "LimitedProtocol") -> None:
        self.remove(gone)
        gone.transport.abort()

    def sweep(self) -> None:
        """Close what is late, and look again in a second."""
        now = time.monotonic()
        for late in [one for one in self.waiting if one.is_late(now)]:
            self._close(late)
        if self.waiting:
            asyncio.get_running_loop().call_later(1.0, self.sweep)


class LimitedProtocol(H11Protocol):
    """HTTP on one connection."""

    def __init__(self, limits: Connections, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._limits = limits
        self._began = self._heard = time.monotonic()
        self.address = ""

    @property
    def is_waiting(self) -> bool:
        """Whether it is the client's turn: to send a request, or the rest of one."""
        return self.cycle is None or self.cycle.response_complete or self.cycle.more_body

    def is_late(self, now: float) -> bool:
        """Whether the client has had its turn for too long; uvicorn itself ends idle ones after an answer."""
        if not self.is_waiting:
            return False
        if self.cycle is not None and not self.cycle.response_complete:
            return now - self._heard > BODY_SECONDS
        return now - self._began > REQUEST_SECONDS

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request."""
        super().connection_made(transport)
        self.address = client_of(self.client[0] if self.client else "")
        self._limits.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave."""
        self._limits.remove(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take a part of a request."""
        before, self._heard = self.cycle, time.monotonic()
        super().data_received(data)
        if self.cycle is not before:
            self._began = self._heard

    def on_response_complete(self) -> None:
        """Wait for the next request, from now on."""
        self._began = time.monotonic()
        if self in self._limits.waiting:
            self._limits.waiting[self] = self._limits.waiting.pop(self)
        super().on_response_complete()


class FewProblems(logging.Filter):
    """Lets so many lines a minute through, and says when more are left out."""

    def __init__(self, most: int = MOST_PROBLEMS) -> None:
        super().__init__()
        self._most, self._times = most, deque[float](maxlen=most)

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a line is logged; one on a request that was a success always is."""
        if not getattr(record, "no_success", True):
            return True
        if len(self._times) == self._most and record.created - self._times[0] < 60:
            return False
        self._times.append(record.created)
        if len(self._times) == self._most and record.created - self._times[0] < 60:
            record.msg, record.args = f"{record.getMessage()}; more of these are left out for a minute", ()
        return True
