"""A process of the engine ``processes``: takes work from a socket, sends back what came of it, in order.

    python -m indexer.engines.worker FILE_DESCRIPTOR

How many threads compute is said by its environment, before anything is imported. Another thread takes what
is sent, so that whoever sends never waits for a computation, and ends the process as soon as the other side is
gone.
"""

import os
import queue
import sys
import threading
from multiprocessing.connection import Connection
from typing import Any

from indexer.engines.work import attempt

READY = "ready"
"""What a process says once it can compute."""


def main() -> None:
    """Work until the other side is gone."""
    connection = Connection(int(sys.argv[1]))
    asked: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(connection, asked), daemon=True).start()
    connection.send(READY)
    while True:
        number, work = asked.get()
        connection.send(attempt(number, work, None))


def _receive(connection: Connection, asked: "queue.SimpleQueue[Any]") -> None:
    while True:
        try:
            asked.put(connection.recv())
        except (EOFError, OSError):
            os._exit(0)


if __name__ == "__main__":
    main()
