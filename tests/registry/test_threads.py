"""registry.caching.one_thread: one thread inside, as many as before outside, later libraries included."""

import subprocess
import sys

import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from registry.caching import one_thread


def num_threads():
    return [pool["num_threads"] for pool in threadpool_info()]


def test_all_pools_have_one_thread_inside_and_what_they_had_outside():
    with threadpool_limits(2):
        before = num_threads()
        assert 2 in before
        with one_thread():
            assert set(num_threads()) == {1}
        assert num_threads() == before


@pytest.mark.slow
def test_a_library_that_is_loaded_after_the_first_use_is_limited_too():
    code = (
        "import numpy\n"
        "from threadpoolctl import threadpool_info\n"
        "from registry.caching import one_thread\n"
        "with one_thread():\n"
        "    pass\n"
        "first = len(threadpool_info())\n"
        "import sklearn.linear_model\n"
        "assert len(threadpool_info()) > first\n"
        "with one_thread():\n"
        "    assert {pool['num_threads'] for pool in threadpool_info()} == {1}\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
