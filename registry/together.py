"""Threads that ask the same at once are answered together, by one of them.

An answer is given only to those who asked before it was begun to be made, so none is older than its question.
"""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Answer = TypeVar("Answer")


class Together(Generic[Answer]):
    """One question; threads may share it."""

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
