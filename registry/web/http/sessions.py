"""Who is logged in, and who has guessed too often; both are forgotten when the server stops."""

import hashlib
import secrets
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable

SESSION_SECONDS = 12 * 3600.0
MAX_SESSIONS = 1000
ATTEMPTS = 10
ATTEMPT_SECONDS = 60.0
MAX_CLIENTS = 10_000


class Sessions:
    """Sessions of those who logged in: random texts, of which only hashes are kept; threads may share it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Start with nobody logged in.

        Args:
            clock: Gives seconds that only rise.
        """
        self._clock = clock
        self._lock = threading.Lock()
        self._ends: OrderedDict[bytes, float] = OrderedDict()

    def open(self) -> str:
        """Log somebody in; beyond ``MAX_SESSIONS`` the oldest is logged out.

        Returns:
            The text that the browser keeps in its cookie.
        """
        session = secrets.token_urlsafe(32)
        with self._lock:
            self._ends[_hash(session)] = self._clock() + SESSION_SECONDS
            while len(self._ends) > MAX_SESSIONS:
                self._ends.popitem(last=False)
        return session

    def is_open(self, session: str) -> bool:
        """Whether a text is that of somebody who is logged in."""
        with self._lock:
            return self._ends.get(_hash(session), 0.0) > self._clock()

    def close(self, session: str) -> None:
        """Log somebody out."""
        with self._lock:
            self._ends.pop(_hash(session), None)


class Throttle:
    """Makes guessing slow: after ``ATTEMPTS`` wrong tokens in a minute a client waits; threads may share it.

    The right token is refused as well while a client waits, so that it cannot learn that it has guessed it.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Start without failures.

        Args:
            clock: Gives seconds that only rise.
        """
        self._clock = clock
        self._lock = threading.Lock()
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()

    def seconds_to_wait(self, client: str) -> float:
        """Seconds until a client may try again; 0 if it may now."""
        with self._lock:
            times = self._failures.get(client)
            if times is None or len(times) < ATTEMPTS:
                return 0.0
            return max(0.0, times[0] + ATTEMPT_SECONDS - self._clock())

    def failed(self, client: str) -> None:
        """Note that a client gave a wrong token."""
        with self._lock:
            self._failures.setdefault(client, deque(maxlen=ATTEMPTS)).append(self._clock())
            self._failures.move_to_end(client)
            while len(self._failures) > MAX_CLIENTS:
                self._failures.popitem(last=False)


def _hash(session: str) -> bytes:
    return hashlib.sha256(session.encode()).digest()
