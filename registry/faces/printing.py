"""Answers as the command line prints them, as text: what ``print(answer)`` prints in Python."""

import io
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

from registry.faces import documents, show_answers, show_records, terminal

PRINTERS: dict[str, Callable[[Any], None]] = {
    "AddedMany": show_records.show_many,
    "AddedTask": show_records.show_added,
    "ImportedExperts": show_records.show_imported_experts,
    "Measurement": show_answers.show_measurement,
    "Nearest": lambda nearest: show_answers.show_neighbors(nearest[0], nearest.distance, nearest[1]),
    "Recommendation": show_answers.show_recommendation,
    "TaskEmbedding": lambda embedding: show_answers.show_embedding(documents.of_embedding(embedding)),
}
"""What prints an answer, by the name of its class."""


def text_of(answer: Any) -> str:
    """An answer as the command line prints it, with the warnings that it writes beside it."""
    written = io.StringIO()
    with redirect_stdout(written), redirect_stderr(written), terminal.for_people():
        PRINTERS[type(answer).__name__](answer)
    return written.getvalue().rstrip("\n")
