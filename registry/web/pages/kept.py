"""Answers that are kept while the registry stays as it is, and those that take so long that readers wait."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as StillWorkingError
from typing import Any, TypeVar

Answer = TypeVar("Answer")


class Kept:
    """The answers that were asked for last; threads may share it."""

    def __init__(self, size: int = 128) -> None:
        """Keep so many answers."""
        self._size = size
        self._lock = threading.Lock()
        self._answers: OrderedDict[Hashable, Any] = OrderedDict()
        self._working: dict[Hashable, Future[Any]] = {}
        self._turn = threading.Lock()

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
        """The same for an answer that may take minutes: made once, by a thread of its own, one at a time.

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
                self._working[key] = Future()
                # A daemon: a server that stops does not wait for it.
                threading.Thread(target=self._work, args=(self._working[key], make), daemon=True).start()
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

    def _work(self, working: "Future[Any]", make: Callable[[], Any]) -> None:
        """Make an answer, one after the other."""
        with self._turn:
            try:
                working.set_result(make())
            except BaseException as err:
                working.set_exception(err)
