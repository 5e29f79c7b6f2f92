"""Answers that are kept while the registry stays as it is, and those that take so long that readers wait."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as StillWorkingError
from typing import Any, TypeVar

Answer = TypeVar("Answer")


class Kept:
    """The answers that were asked for last; threads may share it."""

    def __init__(self, size: int = 128) -> None:
        """Keep so many answers, and one thread for long work, which starts when it is first needed."""
        self._size = size
        self._lock = threading.Lock()
        self._answers: OrderedDict[Hashable, Any] = OrderedDict()
        self._working: dict[Hashable, Future[Any]] = {}
        self._worker: ThreadPoolExecutor | None = None

    def get(self, key: Hashable, make: Callable[[], Answer]) -> Answer:
        """The answer for a key that holds the version of the registry; made if it is not kept.

        Two threads that ask at once may both make it.
        """
        with self._lock:
            if key in self._answers:
                self._answers.move_to_end(key)
                kept: Answer = self._answers[key]
                return kept
        answer = make()
        with self._lock:
            self._answers[key] = answer
            while len(self._answers) > self._size:
                self._answers.popitem(last=False)
        return answer

    def wait(self, key: Hashable, make: Callable[[], Answer], seconds: float) -> Answer | None:
        """The same for an answer that may take minutes: made once, by a thread of its own.

        Args:
            key: Holds the version of the registry.
            make: Makes the answer; what it raises is raised here, and it is asked again the next time.
            seconds: To wait for it.

        Returns:
            The answer, or ``None`` if it is still being made.

        Raises:
            TimeoutError: If making it raised that.
        """
        with self._lock:
            if key in self._answers:
                self._answers.move_to_end(key)
                kept: Answer = self._answers[key]
                return kept
            if key not in self._working:
                self._worker = self._worker or ThreadPoolExecutor(1, thread_name_prefix="kept")
                self._working[key] = self._worker.submit(make)
            working = self._working[key]
        try:
            answer: Answer = working.result(timeout=seconds)
        except StillWorkingError:
            if not working.done():
                return None
            raise  # what was being made timed out itself
        finally:
            if working.done():
                with self._lock:
                    self._working.pop(key, None)
        return self.get(key, lambda: answer)

    def close(self) -> None:
        """Let go of what waits for the thread; what it is at goes on to its end."""
        with self._lock:
            worker, self._worker = self._worker, None
        if worker is not None:
            worker.shutdown(wait=False, cancel_futures=True)
