"""Fitted models of past results, kept while the same is asked: a fit of many results takes seconds.

A fit is known by the bytes of what it was made of, so one that is kept is never stale.
"""

import hashlib
import threading
from collections import OrderedDict

import numpy as np

from registry.recommend.gaussian_process import Likeness
from registry.recommend.prior import Prior, fit_prior
from registry.recommend.results import ResultTable

KEPT = 4

_LOCK = threading.Lock()
_PRIORS: OrderedDict[bytes, Prior] = OrderedDict()


def kept_prior(table: ResultTable, between: Likeness, source: np.ndarray) -> Prior:
    """``registry.recommend.prior.fit_prior`` of the same, or what it gave before."""
    key = _key(table, between, source)
    with _LOCK:
        known = _PRIORS.get(key)
        if known is not None:
            _PRIORS.move_to_end(key)
            return known
    prior = fit_prior(table, between, source)  # outside of the lock: another question need not wait for it
    with _LOCK:
        _PRIORS[key] = prior
        while len(_PRIORS) > KEPT:
            _PRIORS.popitem(last=False)
    return prior


def forget() -> None:
    """Drop all that is kept."""
    with _LOCK:
        _PRIORS.clear()


def _key(table: ResultTable, between: Likeness, source: np.ndarray) -> bytes:
    digest = hashlib.blake2b(digest_size=20)
    for text in (*table.tasks, "", *table.experts, "", *between):
        digest.update(text.encode() + b"\0")
    for array in (table.accuracy, table.reference_rows, *between.values(), source):
        digest.update(repr((array.shape, array.dtype.str)).encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.digest()
