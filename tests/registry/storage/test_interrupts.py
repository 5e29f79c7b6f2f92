"""Interrupts, deleted lock files, other people's umask: the lock is free afterwards, and the process usable."""

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from builders import make_expert
from markdown_pages import ROOT

from registry.errors import StorageError
from registry.storage import locks
from registry.storage.store import Store

CODE = tuple(f"registry/storage/{name}.py" for name in ("locks", "folders", "database", "moments"))


def is_free(folder):
    """Whether another process could take the lock: each open file stands for itself."""
    with Path(folder, locks.LOCK_FILE).open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def interrupted(number, write):
    """Run a write, with Ctrl-C at the line of that number; whether it had so many."""
    seen = 0

    def local(frame, event, arg):
        nonlocal seen
        if event == "line":
            seen += 1
            if seen == number:
                raise KeyboardInterrupt
        return local

    def trace(frame, event, arg):
        return local if frame.f_code.co_filename.endswith(CODE) else None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        write()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return seen >= number


def take(store):
    with store.write_lock(), store.write_lock():
        pass


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # closed by nobody but Python
def test_an_interrupt_at_any_line_leaves_the_lock_free_and_the_process_usable(store):
    take(store)
    number = 1
    while interrupted(number, lambda: take(store)):
        assert is_free(store.uri), number
        take(store)
        assert is_free(store.uri), number
        number += 1
    assert number > 40


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_at_any_line_of_a_write_leaves_the_registry_whole(store):
    number, added = 1, 0
    while interrupted(number, partial(store.add_experts, [make_expert(f"a.{number}")])):
        assert is_free(store.uri), number
        store.add_experts([make_expert(f"b.{number}")])
        added, number = added + 1, number + 1
    assert store.verify() == []
    assert sum(expert.name.startswith("b.") for expert in store.experts()) == added


def test_a_lock_file_that_is_deleted_is_noticed_before_the_commit(store):
    with store.write_lock():
        Path(store.uri, locks.LOCK_FILE).unlink()
        with pytest.raises(StorageError, match=r"write.lock was deleted or replaced while this process held"):
            store.add_experts([make_expert()])
    store.add_experts([make_expert()])
    assert len(store.experts()) == 1


HOLD = """
import sys, time
from registry.storage.store import Store
with Store(sys.argv[1]).write_lock():
    print("held", flush=True)
    if sys.argv[2:]:
        end = time.monotonic() + float(sys.argv[2])
        while time.monotonic() < end:
            sum(range(10000))
    else:
        sys.stdin.readline()
"""


@contextmanager
def holder(store, *seconds_of_work):
    """Another process that holds the lock: idle until it ends, or at work for some seconds."""
    command = [sys.executable, "-W", "ignore", "-c", HOLD, store.uri, *seconds_of_work]
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True, cwd=ROOT) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_writers_wait_as_long_as_the_holder_works_and_say_for_whom(store, monkeypatch, caplog):
    monkeypatch.setattr(locks, "TIMEOUT_SECONDS", 0.5)
    monkeypatch.setattr(locks, "TELL_SECONDS", 0.1)
    with holder(store, "1.5") as process:
        started = time.monotonic()
        take(store)
        assert time.monotonic() - started > 0.8
    assert f"waiting for process {process.pid}, which is writing {store.uri}" in caplog.text


@pytest.mark.parametrize("how", ["idle", "stopped"])
def test_a_holder_that_stands_still_is_not_waited_for(store, monkeypatch, how):
    monkeypatch.setattr(locks, "TIMEOUT_SECONDS", 0.3)
    with holder(store, *(["60"] if how == "stopped" else [])) as process:
        if how == "stopped":
            process.send_signal(signal.SIGSTOP)
        with pytest.raises(StorageError, match=f"is being written by process {process.pid}, which did not"):
            take(store)


def test_patience_lasts_as_long_as_the_holder_lives_and_is_not_stopped(store, monkeypatch):
    monkeypatch.setattr(locks, "TIMEOUT_SECONDS", 0.3)
    with holder(store) as process:
        threading.Timer(1.0, process.stdin.close).start()
        started = time.monotonic()
        with locks.patience():
            take(store)
        assert time.monotonic() - started > 0.6
    with holder(store) as process:
        process.send_signal(signal.SIGSTOP)
        with locks.patience(), pytest.raises(StorageError, match="which did not finish"):
            take(store)


@pytest.mark.parametrize("of_team", [0o775, 0o2775])
def test_permissions_follow_the_folder_whatever_the_umask(tmp_path, of_team):
    """With the set-group-ID bit all is of the group of the folder, whatever the group of who writes."""
    (tmp_path / "team").mkdir()
    if os.geteuid() == 0:
        os.chown(tmp_path / "team", -1, os.getegid() + 100)
    (tmp_path / "team").chmod(of_team)
    former = os.umask(0o077)
    try:
        store = Store.create(tmp_path / "team")
        store.add_experts([make_expert()])
        (Path(store.uri) / "seals" / "left.tmp").touch()
        store.remove_expert(make_expert().name)
    finally:
        os.umask(former)
    modes = {path: path.stat().st_mode & 0o2777 for path in Path(store.uri).rglob("*")}
    assert {mode for path, mode in modes.items() if path.is_dir()} == {of_team}
    assert {path.name: mode for path, mode in modes.items() if path.is_file() and mode != 0o664} == {}
    if of_team & 0o2000:
        assert {path.stat().st_gid for path in modes} == {(tmp_path / "team").stat().st_gid}
