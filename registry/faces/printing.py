"""Answers as the command line prints them, as text: what ``print(answer)`` prints in Python."""

import io
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

from registry.answers import ImportedExperts, Measurement, Recommendation
from registry.faces import show_answers, show_records, terminal
from registry.task_answers import AddedMany, AddedTask, Nearest

PRINTERS: dict[type, Callable[[Any], None]] = {
    AddedMany: show_records.show_many,
    AddedTask: show_records.show_added,
    ImportedExperts: show_records.show_imported_experts,
    Measurement: show_answers.show_measurement,
    Nearest: lambda nearest: show_answers.show_neighbors(nearest[0], nearest.distance, nearest[1]),
    Recommendation: show_answers.show_recommendation,
}
"""What prints an answer, by its class."""


def text_of(answer: Any) -> str:
    """An answer as the command line prints it, with the warnings that it writes beside it."""
    written = io.StringIO()
    with redirect_stdout(written), redirect_stderr(written), terminal.for_people():
        PRINTERS[type(answer)](answer)
    return written.getvalue().rstrip("\n")
