"""How much is tested: a tenth of the slow tests, and few examples of each property unless all are asked for.

``--slow-tenth N`` keeps every tenth of the tests marked slow, so that ten runs make all of them. Cases of one
function are spread over the tenths one after the other; where a function starts is a checksum of its name. So a
test stays in its tenth while others come and go, and of ten long cases of a function each run has one.

Hypothesis draws at most ``EXAMPLES`` examples for a test, others each time; with ``--all-examples`` as many as
the test names.
"""

import time
import zlib
from collections import Counter

import pytest
from hypothesis import settings

TENTHS = 10
EXAMPLES = 8
START_KEY = pytest.StashKey[float]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("amounts")
    group.addoption("--all-examples", action="store_true", help="draw as many examples as each test names")
    group.addoption(
        "--slow-tenth", type=int, metavar="N", help="keep a tenth, N modulo 10, of the tests marked slow"
    )
    group.addoption("--slow-seconds", type=float, metavar="S", help="start no test marked slow after S seconds")


def tenths_of(node_ids: list[str]) -> dict[str, int]:
    """In which tenth each test is, by the ids of all slow tests."""
    seen: Counter[str] = Counter()
    tenths = {}
    for node_id in sorted(node_ids):
        function = node_id.partition("[")[0]
        tenths[node_id] = (zlib.crc32(function.encode()) + seen[function]) % TENTHS
        seen[function] += 1
    return tenths


def draw_fewer(item: pytest.Item) -> None:
    """Bound the examples of a test that draws some; where Hypothesis keeps its settings is not documented."""
    test = getattr(item, "obj", None)
    own = getattr(test, "_hypothesis_internal_use_settings", None)
    if own is not None and own.max_examples > EXAMPLES:
        test._hypothesis_internal_use_settings = settings(own, max_examples=EXAMPLES)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the slow tests of the other tenths, and draw fewer examples; tests that are not slow stay."""
    if not config.getoption("all_examples"):
        for item in items:
            draw_fewer(item)
    number = config.getoption("slow_tenth")
    if number is None:
        return
    tenths = tenths_of([item.nodeid for item in items if item.get_closest_marker("slow")])
    others = [item for item in items if tenths.get(item.nodeid, number % TENTHS) != number % TENTHS]
    items[:] = [item for item in items if item not in others]
    config.hook.pytest_deselected(items=others)


def pytest_sessionstart(session: pytest.Session) -> None:
    session.config.stash[START_KEY] = time.monotonic()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a slow test that would start after the time is over; the report counts it."""
    seconds = item.config.getoption("slow_seconds")
    if seconds is not None and item.get_closest_marker("slow"):
        passed = time.monotonic() - item.config.stash[START_KEY]
        if passed > seconds:
            pytest.skip(f"the {seconds:g} seconds for slow tests are over")
