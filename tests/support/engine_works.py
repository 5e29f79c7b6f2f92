"""Work for engines that needs neither torch nor a network, so that a process that runs it starts at once."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from indexer.errors import DataError


@dataclass(frozen=True)
class Square:
    """Work that needs no network; in processes it is found by PYTHONPATH."""

    value: int

    @property
    def title(self) -> str:
        return f"square of {self.value}"

    def run(self) -> int:
        if self.value == 13:
            raise DataError("thirteen", "brings bad luck")
        if self.value == 14:
            raise ZeroDivisionError("as of a library")
        return self.value**2


@dataclass(frozen=True)
class Dying:
    """Work that kills its process as long as its file lacks so many lines."""

    path: str
    times: int
    title: str = "a deadly one"

    def run(self) -> str:
        with Path(self.path).open("a") as file:
            file.write("begun\n")
        if len(Path(self.path).read_text().split()) <= self.times:
            os.kill(os.getpid(), signal.SIGKILL)
        return "alive"


@dataclass(frozen=True)
class Slow:
    """Work that writes down its process and takes long."""

    path: str
    title: str = "a slow one"

    def run(self) -> None:
        Path(self.path).write_text(str(os.getpid()))
        time.sleep(60)
