"""One thread for linear algebra: on matrices this small more gain nothing, and wait for each other."""

import contextlib
import sys
from functools import cache

from threadpoolctl import ThreadpoolController

BRING_LIBRARIES = ("scipy.linalg", "sklearn", "torch")
"""Modules that load a BLAS or an OpenMP of their own."""


def one_thread() -> contextlib.AbstractContextManager[None]:
    """Keep BLAS and OpenMP of what is imported so far on one thread."""
    loaded = tuple(name for name in BRING_LIBRARIES if name in sys.modules)
    limit: contextlib.AbstractContextManager[None] = _libraries(loaded).limit(limits=1)
    return limit


@cache
def _libraries(loaded: tuple[str, ...]) -> ThreadpoolController:
    """What there is when these modules are loaded; looking takes 20 ms, more than a small matrix does."""
    return ThreadpoolController()
