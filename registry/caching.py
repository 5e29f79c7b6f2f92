"""Answers that are kept while what they were made of stays, and those that threads make together or alone.

``one_thread`` keeps linear algebra on one: on matrices this small more gain nothing, and wait for each other.
"""

import contextlib
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as StillWorkingError
from functools import cache
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

Answer = TypeVar("Answer")


class LastAnswers:
    """The answers that were asked for last; threads may share it.

    A key has to hold all that its answer depends on, such as the version of the registry; so none is stale.
    """

    def __init__(self, size: int = 128) -> None:
        """Keep so many answers."""
        self._size = size
        self._lock = threading.Lock()
        self._answers: OrderedDict[Hashable, Any] = OrderedDict()
        self._working: dict[Hashable, Future[Any]] = {}
        self._turn = threading.Lock()

    def __len__(self) -> int:
        """How many are kept."""
        return len(self._answers)

    def get(self, key: Hashable, make: Callable[[], Answer]) -> Answer:
        """The answer for a key, made if it is not kept; two threads that ask at once may both make it."""
        with self._lock:
            if key in self._answers:
                self._answers.move_to_end(key)
                kept: Answer = self._answers[key]
                return kept
        answer = make()  # outside of the lock: another question need not wait for it
        with self._lock:
            self._answers[key] = answer
            while len(self._answers) > self._size:
                self._answers.popitem(last=False)
        return answer

    def wait(self, key: Hashable, make: Callable[[], Answer], seconds: float) -> Answer | None:
        """An answer that may take minutes: made once, by a thread of its own, one at a time.

        Args:
            key: What the answer depends on.
            make: Makes the answer; what it raises is raised here, and it is asked again the next time.
            seconds: Longest wait for it.

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

    def forget(self) -> None:
        """Drop all that is kept."""
        with self._lock:
            self._answers.clear()

    def _work(self, working: "Future[Any]", make: Callable[[], Any]) -> None:
        """Make an answer, one after the other."""
        with self._turn:
            try:
                working.set_result(make())
            except BaseException as err:
                working.set_exception(err)


class Together(Generic[Answer]):
    """One question that threads ask at once: one of them makes the answer for all.

    An answer is given only to those who asked before its making began, so none is older than its question.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._is_making = False
        self._begun = 0
        self._last: tuple[int, Answer] | None = None

    def ask(self, make: Callable[[], Answer]) -> Answer:
        """The answer, made now by this thread or, after this call began, by another.

        Args:
            make: Makes the answer; what it raises is raised to the thread that made it, and the next one tries.
        """
        with self._changed:
            asked = self._begun
            while self._is_making:
                self._changed.wait()
                if self._last is not None and self._last[0] > asked:
                    return self._last[1]
            self._is_making = True
            self._begun += 1
            number = self._begun
        try:
            answer = make()
        except BaseException:
            with self._changed:
                self._is_making = False
                self._changed.notify_all()
            raise
        with self._changed:
            self._is_making = False
            self._last = (number, answer)
            self._changed.notify_all()
        return answer


BRING_LIBRARIES = ("scipy.linalg", "sklearn", "torch")
"""Modules that load a BLAS or an OpenMP of their own."""


def one_thread() -> contextlib.AbstractContextManager[None]:
    """Keep BLAS and OpenMP of what is imported so far on one thread."""
    loaded = tuple(name for name in BRING_LIBRARIES if name in sys.modules)
    limit: contextlib.AbstractContextManager[None] = _libraries(loaded).limit(limits=1)
    return limit


@cache
def _libraries(loaded: tuple[str, ...]) -> "ThreadpoolController":
    """What there is when these modules are loaded; looking takes 20 ms, more than a small matrix does."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
