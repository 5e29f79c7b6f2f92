"""What the parts of ``TaskRegistry`` that ask questions need of it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from registry.options import DataOptions, Progress
from registry.snapshots.view import Point, View

if TYPE_CHECKING:
    from registry.ingest.ingest import TaskEmbedding

Answer = TypeVar("Answer")


class Asking(ABC):
    """Questions are answered in a view of one space, in which queries have their points."""

    @abstractmethod
    def _answer(self, ask: Callable[[View], Answer], probe: str | None, where: str | None = None) -> Answer:
        """Answer a question in the space of a probe."""

    @abstractmethod
    def _locate(
        self,
        queries: "Sequence[str | TaskEmbedding]",
        view: View,
        options: DataOptions,
        progress: Progress | None,
    ) -> list[Point]:
        """The points of registered tasks, of embeddings, and of data that is embedded now."""

    @abstractmethod
    def _registered(self, query: str, view: View) -> int | None:
        """Position of the task of that name in the catalogue, or ``None`` for data."""


def space_of(query: "str | TaskEmbedding") -> str | None:
    """The space of an embedding; a name or a data spec asks for none."""
    return None if isinstance(query, str) else query.space.space_id
