"""The space in which pages compare tasks, where a registry has several."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from registry.core import TaskRegistry
from registry.errors import InvalidQueryError, NotFoundError

Answer = TypeVar("Answer")


def in_shared_space(
    registry: TaskRegistry, references: Sequence[str], ask: Callable[[str | None], Answer]
) -> Answer:
    """Ask in the default space; where that cannot be, in the first that all the tasks were embedded in.

    Raises:
        NotFoundError: If there is no such task, or they share no space.
        InvalidQueryError: If it cannot be asked in any.
    """
    try:
        return ask(None)
    except (NotFoundError, InvalidQueryError):
        shared = [{space.space_id for space, _ in registry.embeddings_of(name)} for name in references]
        common = sorted(set.intersection(*shared))
        if not common:
            raise
        return ask(common[0])


def default_space(registry: TaskRegistry) -> str | None:
    """Id of the space that is meant where none is named; the first one where several could be meant."""
    try:
        return registry.space().space_id
    except InvalidQueryError:
        return next((space.space_id for space in registry.spaces()), None)
