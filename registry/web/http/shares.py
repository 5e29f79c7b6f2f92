"""Fair shares: what one token, or one address without a token, may ask in a second and have answered at once.

Who asks more waits for their own answers, or is refused for a moment; others are answered meanwhile. No header
says whose request it is but the token, and a token counts wherever it comes from.
"""

import asyncio
import logging
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from registry.errors import RegistryError
from registry.web.http.faults import RefusedError
from registry.web.http.sessions import MAX_CLIENTS
from registry.wording import printable

LOG = logging.getLogger("t2v.serve")

AT_ONCE = 4
"""Answers of one holder that are made at once; further ones wait for these."""

MOST_OPEN = 64
"""Requests of one holder that wait, or whose answer is made or sent, such as the events of a job."""

BURST_SECONDS = 10.0
"""As many requests as may come in this time may come at once."""

QUIET_SECONDS = 60.0
"""Without a refusal, after which the next one is told again."""


@dataclass(eq=False)
class Share:
    """What one holder has asked.

    Attributes:
        turns: Taken by each answer that is made.
    """

    left: float  # requests that may come at once
    at: float  # when that was so
    open: int = 0  # requests that have not ended
    refused_at: float = -math.inf  # when one was refused last
    turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))


class Shares:
    """The shares of all who ask; of the event loop alone.

    Args:
        rate: Requests a second of one holder, on the average; 0 for any number.
        note: Called with ``limited`` and a token at the first of several refusals; nobody waits for it.
        clock: Gives seconds that only rise.
    """

    def __init__(
        self, rate: float, note: Callable[[str, str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate, self._note, self._clock = rate, note, clock
        self._of: OrderedDict[tuple[str, bool], Share] = OrderedDict()

    def open(self, holder: str, *, is_token: bool) -> Share:
        """Count a request, until ``open`` is lowered again; ``RefusedError`` if there are too many."""
        now, most = self._clock(), max(self._rate * BURST_SECONDS, 1.0)
        share = self._of.setdefault((holder, is_token), Share(most, now))
        self._of.move_to_end((holder, is_token))
        if len(self._of) > MAX_CLIENTS:
            self._of.popitem(last=False)
        share.left, share.at = min(most, share.left + (now - share.at) * self._rate), now
        wait = 1 if share.open >= MOST_OPEN else 0
        if self._rate and share.left < 1:
            wait = math.ceil((1 - share.left) / self._rate)
        if not wait:
            share.open, share.left = share.open + 1, share.left - 1
            return share
        who = f"the token {holder}" if is_token else f"{holder or 'this address'}, without a token,"
        since, share.refused_at = now - share.refused_at, now
        if since > QUIET_SECONDS:
            LOG.warning("%s asks too much and is slowed down", printable(who))
            if is_token:
                asyncio.get_running_loop().run_in_executor(None, self._written, holder)
        raise RefusedError(
            429,
            f"{who} asks too much: {self._rate or math.inf:g} requests a second and {MOST_OPEN} at once are "
            f"answered; ask again in {wait} s",
            {"Retry-After": str(wait)},
        )

    def _written(self, holder: str) -> None:
        """Say it in the history; where that cannot be written, the log has it."""
        try:
            self._note("limited", holder)
        except RegistryError as error:
            LOG.warning("that is not in the history: %s", error)
