"""Who is logged in, and who has guessed too often; both are forgotten when the server stops."""

import hashlib
import ipaddress
import secrets
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from functools import lru_cache

SESSION_SECONDS = 12 * 3600.0
MAX_SESSIONS = 1000
ATTEMPTS = 10
ATTEMPT_SECONDS = 60.0
MAX_CLIENTS = 10_000


class Sessions:
    """Sessions of those who logged in: random texts, of which only hashes are kept; threads may share it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Start with nobody logged in."""
        self._clock = clock
        self._lock = threading.Lock()
        self._open: OrderedDict[bytes, tuple[float, str]] = OrderedDict()

    def open(self, digest: str) -> str:
        """Log the holder of a token in; beyond ``MAX_SESSIONS`` the oldest session ends.

        Returns:
            The text that the browser keeps in its cookie.
        """
        session = secrets.token_urlsafe(32)
        with self._lock:
            self._open[_hash(session)] = self._clock() + SESSION_SECONDS, digest
            while len(self._open) > MAX_SESSIONS:
                self._open.popitem(last=False)
        return session

    def digest(self, session: str) -> str:
        """The digest of the token that a session was opened with; empty if it is not open."""
        with self._lock:
            end, digest = self._open.get(_hash(session), (0.0, ""))
            return digest if end > self._clock() else ""

    def close(self, session: str) -> None:
        """Log somebody out."""
        with self._lock:
            self._open.pop(_hash(session), None)


class Throttle:
    """Makes guessing slow: after ``ATTEMPTS`` wrong tokens in a minute a client waits; threads may share it.

    The single token is refused as well while a client waits, so that it cannot learn that it has guessed it. A
    wrong token that comes again is no new guess: a program that goes on with an old one locks out nobody.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Start without failures."""
        self._clock = clock
        self._lock = threading.Lock()
        self._failures: OrderedDict[str, deque[tuple[float, bytes]]] = OrderedDict()

    def seconds_to_wait(self, client: str) -> float:
        """Seconds until a client may try again; 0 if it may now."""
        with self._lock:
            times = self._failures.get(client)
            if times is None or len(times) < ATTEMPTS:
                return 0.0
            return max(0.0, times[0][0] + ATTEMPT_SECONDS - self._clock())

    def failed(self, client: str, given: str) -> None:
        """Note that a client gave a wrong token."""
        with self._lock:
            guesses, guess = self._failures.setdefault(client, deque(maxlen=ATTEMPTS)), _hash(given)
            if all(guess != former for _, former in guesses):
                guesses.append((self._clock(), guess))
            self._failures.move_to_end(client)
            while len(self._failures) > MAX_CLIENTS:
                self._failures.popitem(last=False)


@lru_cache(MAX_CLIENTS)
def client_of(address: str) -> str:
    """Who has an address, for counting: of IPv6 the network of 64 bits, as a client has all addresses in it."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if ip.version == 4 or ip.ipv4_mapped:
        return str(ip if ip.version == 4 else ip.ipv4_mapped)
    return str(ipaddress.ip_network((ip, 64), strict=False))


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode(errors="replace")).digest()
