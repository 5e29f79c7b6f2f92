"""Check the saved index of a space against its checksums; a cache, so what is wrong with it is no loss."""

from contextlib import suppress
from pathlib import Path

import numpy as np

from registry.index.files import BusyIndexError, IndexFiles, UnusableIndexError

CHECKED_ROWS = 4096  # at a time


def index_damage(folder: Path, registry_id: str, space_id: str) -> str:
    """What is wrong with the index of a space, in a few words; empty if nothing is, or there is none."""
    try:
        saved = IndexFiles(folder, registry_id, space_id).load()
    except UnusableIndexError as error:
        return "" if str(error) == "missing" else str(error)
    for start in range(0, len(saved.vectors), CHECKED_ROWS):
        rows = np.arange(start, min(start + CHECKED_ROWS, len(saved.vectors)))
        if (row := saved.damaged_row(rows)) is not None:
            return f"damaged (row {row} of its vectors is not what was written)"
    return ""


def remove_index(folder: Path, registry_id: str, space_id: str) -> bool:
    """Delete the index files of a space, which are built again when they are needed; whether it could."""
    files = IndexFiles(folder, registry_id, space_id)
    with suppress(OSError, BusyIndexError), files.writing(wait=True):
        files.remove()
        return True
    return False
