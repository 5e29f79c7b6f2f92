"""What is known of the likeness of tasks, and what an answer is asked about.

Axes: U tasks with known distances.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from registry.errors import InvalidRecordError


@dataclass(frozen=True, eq=False)
class TaskDistances:
    """Distances between tasks; what is not known is NaN or left out.

    Attributes:
        tasks: Names of U tasks: those with results, and the sources of experts.
        matrix: ``[U, U]`` distance from the task of the row to the task of the column.
        to_query: ``[U]`` distance from each task to the query.
    """

    tasks: tuple[str, ...]
    matrix: np.ndarray
    to_query: np.ndarray

    def __post_init__(self) -> None:
        """Check the shapes.

        Raises:
            InvalidRecordError: If the arrays do not fit the names, or a name comes twice.
        """
        size = len(self.tasks)
        if len(set(self.tasks)) != size:
            raise InvalidRecordError("task distances: every task must be named once")
        for name, expected in (("matrix", (size, size)), ("to_query", (size,))):
            values = np.asarray(getattr(self, name), dtype=np.float64)
            if values.shape != expected:
                raise InvalidRecordError(
                    f"task distances: {name} must have shape {expected}, got {values.shape}"
                )
            object.__setattr__(self, name, values)

    def between(self, sources: Sequence[str], targets: Sequence[str]) -> np.ndarray:
        """Distances ``[len(sources), len(targets)]``, NaN where not known."""
        padded = np.pad(self.matrix, ((0, 1), (0, 1)), constant_values=np.nan)
        return np.asarray(padded[np.ix_(self._places(sources), self._places(targets))])

    def from_tasks(self, sources: Sequence[str]) -> np.ndarray:
        """Distances to the query ``[len(sources)]``, NaN where not known."""
        return np.asarray(np.append(self.to_query, np.nan)[self._places(sources)])

    def _places(self, names: Sequence[str]) -> np.ndarray:
        """Place of each name; U, which holds NaN, for a name that is not there."""
        place = {name: number for number, name in enumerate(self.tasks)}
        return np.array([place.get(name, len(self.tasks)) for name in names], dtype=np.intp)
