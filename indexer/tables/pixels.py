"""Images written out as numbers in a table: all in one cell, or a column for each pixel.

emotion,pixels,Usage         grey values with blanks between, row after row, as FER2013 has them
label,pixel0,pixel1,...      a column for each, as Kaggle's digits; also 1x1,1x2,...
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from indexer.tables.files import Row, Table, cell_text

PIXELS = "pixels"
_ONE = re.compile(r"(?:pixel|px|p)[_ ]?\d+|\d+x\d+", re.IGNORECASE)
_LEAST = 16


def with_pixels(table: Table) -> Table:
    """A table in which columns of single pixels are one column."""
    single = [column for column in table.columns if _ONE.fullmatch(column)]
    if len(single) < _LEAST or len(set(single)) < len(single) or PIXELS in table.columns:
        return table
    others = tuple(column for column in table.columns if not _ONE.fullmatch(column))

    def read(wanted: Sequence[str]) -> Iterator[Row]:
        plain = [column for column in wanted if column != PIXELS]
        for place, cells in table.read([*plain, *(single if PIXELS in wanted else ())]):
            joined = " ".join(cell_text(cells[column]) for column in single) if PIXELS in wanted else ""
            yield place, {column: cells[column] for column in plain} | {PIXELS: joined}

    said = f"{len(single)} columns from {single[0]!r} to {single[-1]!r} as the pixels of an image"
    return replace(table, columns=(*others, PIXELS), read=read, taken=(*table.taken, said))


def pixels_of(text: str) -> np.ndarray | None:
    """A square image ``[side, side]``, or ``[side, side, 3]``, of 8 bits; ``None`` if the numbers make none."""
    words = text.split()
    if not words or not all(word.isdigit() for word in words):
        return None
    for channels in (1, 3):
        side = math.isqrt(len(words) // channels)
        if side * side * channels == len(words) and side > 1:
            values = np.array(words, np.int64)
            shape = (side, side, channels)[: 2 + (channels > 1)]
            return values.astype(np.uint8).reshape(shape) if values.max() < 256 else None
    return None
