import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import obstore
import pytest
from markdown_pages import ROOT

from registry.errors import StorageError
from registry.storage import locks
from registry.storage.locks import Lease
from registry.storage.object_store import ObjectPlace, _LockSlot

TTL_SECONDS = 1.0

HEADER = """
import os, sys, time
import obstore
from registry.storage import locks
from registry.errors import StorageError
from registry.storage.object_store import ObjectPlace

locks.TTL_SECONDS = float(sys.argv[2])
place = ObjectPlace(sys.argv[1])
"""

HOLD = """
with place.lock():
    print("held", flush=True)
    sys.stdin.readline()
    try:
        place.check_lock()
    except StorageError as error:
        print(error)
    else:
        print("still held")
"""

COUNT = """
for _ in range(10):
    with place.lock():
        count = int(bytes(obstore.get(place._store, "count").bytes()))
        obstore.put(place._store, "count", str(count + 1).encode())
"""

GREEDY = """
while True:
    with place.lock():
        print("held", flush=True)
        time.sleep(0.5)
"""

FORK = """
with place.lock():
    child = os.fork()
    try:
        if child == 0:
            with place.lock():
                print("the child holds it too")
    except StorageError as error:
        print(error, flush=True)
        sys.exit()
    os.waitpid(child, 0)
    place.check_lock()
    print("the parent still holds it")
"""


@pytest.fixture(autouse=True)
def short_ttl(monkeypatch):
    monkeypatch.setattr(locks, "TTL_SECONDS", TTL_SECONDS)


@pytest.fixture
def place(bucket):
    return ObjectPlace(f"{bucket}/registry")


def start(code, place, ttl_seconds=TTL_SECONDS):
    """A process that has the place of the same prefix."""
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", HEADER + code, place.uri, str(ttl_seconds)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


@contextlib.contextmanager
def holder(place, ttl_seconds=TTL_SECONDS):
    """A process that holds the lock until its stdin is closed."""
    with start(HOLD, place, ttl_seconds) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def new_lease(place, slot=None):
    """A lock that shares nothing with those of this process, as if it were in another one."""
    return Lease(place.uri, slot or _LockSlot(place))


def claim(place):
    return locks._Claim.from_bytes(bytes(obstore.get(place._store, locks.LOCK_FILE).bytes()))


def busy_message(place, process_id, seconds):
    return (
        f"{place.uri} is being written by process {process_id} on {socket.gethostname()}, which did not finish "
        f"within {seconds} seconds; try again later, or end that process if it hangs"
    )


def hold(lease, timeout_seconds):
    with lease.hold(timeout_seconds):
        pass


def test_lock_excludes_processes(place):
    obstore.put(place._store, "count", b"0")
    processes = [start(COUNT, place, ttl_seconds=60) for _ in range(4)]
    assert [process.communicate(timeout=60) for process in processes] == [("", None)] * 4
    assert obstore.get(place._store, "count").bytes() == b"40"


def test_lock_excludes_threads(place):
    counts = [0]

    def count():
        for _ in range(5):
            with place.lock():
                seen = counts[0]
                time.sleep(0.001)
                counts[0] = seen + 1

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == [20]


def test_greedy_process_leaves_the_lock_to_others(place):
    with start(GREEDY, place) as process:
        process.stdout.readline()
        started_at = time.monotonic()
        for _ in range(3):
            hold(place._lease, 60)
        assert time.monotonic() - started_at < 5
        process.kill()


def test_lock_is_reentrant_and_released_once(place):
    with place.lock():
        with place.lock():
            assert claim(place).pid == os.getpid()
        assert not claim(place).released
        place.check_lock()
    assert claim(place).released
    with place.lock():
        assert not claim(place).released


def test_lock_is_released_after_an_error(place):
    with pytest.raises(KeyError, match="one"), place.lock():
        raise KeyError("one")
    assert claim(place).released


def test_two_places_of_one_prefix_share_the_lock(place):
    with place.lock(), ObjectPlace(f"{place.uri}/").lock():
        assert not claim(place).released


def test_waiting_in_vain_names_the_holder(place, monkeypatch):
    monkeypatch.setattr(locks, "TIMEOUT_SECONDS", 0.3)
    with holder(place) as process:
        message = busy_message(place, process.pid, "0.3")
        with pytest.raises(StorageError, match=re.escape(message)), place.lock():
            pass


def test_waiting_in_vain_for_another_thread_names_this_process(place, monkeypatch):
    monkeypatch.setattr(locks, "TIMEOUT_SECONDS", 0.1)
    messages = []

    def take():
        try:
            with place.lock():
                messages.append("taken")
        except StorageError as error:
            messages.append(str(error))

    with place.lock():
        thread = threading.Thread(target=take)
        thread.start()
        thread.join()
    assert messages == [busy_message(place, os.getpid(), "0.1")]


def test_lock_is_renewed_while_it_is_held(place):
    with holder(place, ttl_seconds=2.0), pytest.raises(StorageError, match="is being written by process"):
        hold(new_lease(place), 3.0)


def test_lock_of_a_killed_holder_is_taken_over(place):
    with holder(place) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        killed_at = time.monotonic()
        with place.lock():
            waited = time.monotonic() - killed_at
            assert claim(place).pid == os.getpid()
    assert TTL_SECONDS * 0.9 < waited < TTL_SECONDS + 2 * locks.LONGEST_WAIT_SECONDS


def test_holder_says_how_long_to_wait(place):
    """The holder renews every 20 seconds, and the waiter waits for longer than its own time to live."""
    with holder(place, ttl_seconds=60), pytest.raises(StorageError, match="is being written by process"):
        hold(place._lease, 1.5 * TTL_SECONDS)


def test_paused_holder_learns_that_its_lock_was_taken(place):
    with holder(place) as process:
        process.send_signal(signal.SIGSTOP)
        with place.lock():
            process.send_signal(signal.SIGCONT)
            output, _ = process.communicate("\n", timeout=30)
            place.check_lock()
    assert output == (
        f"{place.uri}: this process was held up for longer than 1 s and lost the lock; nothing more was "
        "written, try again\n"
    )


def test_paused_holder_whose_lock_nobody_took_goes_on(place):
    with holder(place) as process:
        process.send_signal(signal.SIGSTOP)
        time.sleep(1.5 * TTL_SECONDS)
        process.send_signal(signal.SIGCONT)
        output, _ = process.communicate("\n", timeout=30)
    assert output == "still held\n"
    assert claim(place).released


def test_lock_is_lost_when_its_object_is_overwritten(place):
    with place.lock():
        obstore.put(place._store, locks.LOCK_FILE, locks._Claim(host="elsewhere").to_bytes())
        time.sleep(0.6 * TTL_SECONDS)
        with pytest.raises(StorageError, match="lost the lock"):
            place.check_lock()
    assert claim(place).host == "elsewhere"
    assert not claim(place).released


def test_unreadable_claim_expires(place):
    obstore.put(place._store, locks.LOCK_FILE, b"nonsense")
    with pytest.raises(StorageError, match="is being written by another process"):
        hold(new_lease(place), 0.1)
    with place.lock():
        assert claim(place).pid == os.getpid()


class LosingAnswers:
    """A slot whose every second write succeeds but seems to meet another writer."""

    def __init__(self, slot):
        self.slot = slot
        self.num_writes = 0

    def read(self):
        return self.slot.read()

    def replace(self, content, version):
        self.num_writes += 1
        written = self.slot.replace(content, version)
        return None if self.num_writes % 2 else written


def test_lost_answers_lose_no_lock(place):
    lease = new_lease(place, LosingAnswers(_LockSlot(place)))
    with lease.hold():
        lease._renew()
        lease.check()
        assert claim(place).renewals == 1
    assert claim(place).released


def test_fork_holds_nothing(place):
    output, _ = start(FORK, place).communicate(timeout=30)
    assert output == (
        f"{place.uri} cannot be opened in a process forked from one that had opened a registry; start "
        "processes by 'spawn' (multiprocessing.get_context('spawn'))\n"
        "the parent still holds it\n"
    )


def test_check_without_the_lock_fails(place):
    with pytest.raises(StorageError, match="lost the lock"):
        place.check_lock()
