"""Lists of tasks a page at a time, and what tells whether anything has changed since."""

from dataclasses import dataclass

from registry.errors import InvalidQueryError
from registry.ingest import ingest
from registry.library.lifecycle import Lifecycle
from registry.notebooks import Records
from registry.records import SpaceRecord, TaskRecord
from registry.snapshots.snapshots import (
    NO_VERSION as NO_VERSION,  # what version gives where there is no registry
)
from registry.snapshots.snapshots import Snapshots
from registry.snapshots.view import choose_space

SORTS = ("name", "kind", "num_classes", "num_samples", "created_at", "version")
"""What a list of tasks can be sorted by; ties in order of name."""

MAX_LIMIT = 1000
"""Most tasks on a page."""

MAX_WORDS = 16
"""Most words that are searched for at once."""


@dataclass(frozen=True)
class TaskPage:
    """Some of the tasks that were asked for.

    Attributes:
        total: How many there are.
        offset: How many come before these.
        limit: Most tasks of a page.
        tasks: The latest versions, in the order that was asked for.
    """

    total: int
    offset: int
    limit: int
    tasks: Records[TaskRecord]


class TaskPages(Lifecycle):
    """The part of ``TaskRegistry`` that lists."""

    builtin: bool
    _snapshots: Snapshots

    def find_tasks(
        self,
        *,
        search: str | None = None,
        where: str | None = None,
        sort: str = "name",
        descending: bool = False,
        limit: int = 50,
        offset: int = 0,
    ) -> TaskPage:
        """A page of the latest versions of tasks.

        Args:
            search: Words, each of which must be part of the name or of a tag, in either case.
            where: A filter that they must pass, see ``registry.filters``.
            sort: One of ``registry.library.task_pages.SORTS``; ties in order of name.
            descending: Largest or last first.
            limit: Most tasks returned, 1 to 1,000.
            offset: How many are passed over, at least 0; behind the last one a page is empty.

        Raises:
            InvalidQueryError: If the filter does not parse, or anything is out of its range.
            StorageError: If there is no registry.
        """
        _check(search, sort, limit, offset)
        store = self._opened()
        catalogue = self._snapshots.catalogue()
        mask = catalogue.answerable(builtin=self.builtin, where=where)
        for word in (search or "").split():
            mask = mask & catalogue.holding(word)
        order = catalogue.order(sort, descending=descending)
        found = order[mask[order]]
        keys = [catalogue.key(position) for position in found[offset : offset + limit].tolist()]
        return TaskPage(len(found), offset, limit, Records(store.task_versions(keys)))

    def has_task(self, reference: str) -> bool:
        """Whether ``name``, ``name@version`` or ``name@alias`` is there; quick, and nothing is taken for data.

        Raises:
            StorageError: If there is no registry.
        """
        self._opened()
        return self._snapshots.catalogue().find(reference) is not None

    def version(self) -> str:
        """A text that changes with every write to the registry; empty where there is none."""
        return self._snapshots.version()

    def spaces(self) -> Records[SpaceRecord]:
        """The spaces that tasks were embedded in, sorted by id.

        Raises:
            StorageError: If there is no registry.
        """
        return Records(self._opened().spaces())

    def space(self, probe: str | None = None) -> SpaceRecord:
        """The space in which questions are asked.

        Args:
            probe: Loader of the probe, or id of the space; if ``None``, that of the built-in probe, or the only
                one.

        Raises:
            NotFoundError: If no task was embedded with that probe.
            InvalidQueryError: If several spaces fit, or there is none at all.
            StorageError: If there is no registry.
        """
        self._opened()
        spaces = self._snapshots.spaces()
        return choose_space(
            spaces,
            ingest.meant_loader(probe, [space.probe_source for space in spaces]) if probe else None,
            default_probe=ingest.default_probe(),
            default_recipe=ingest.default_recipe(),
        )


def _check(search: str | None, sort: str, limit: int, offset: int) -> None:
    """Check what a page is asked for by.

    Raises:
        InvalidQueryError: If anything is out of its range.
    """
    if len((search or "").split()) > MAX_WORDS:
        raise InvalidQueryError(f"search must be at most {MAX_WORDS} words, got {len((search or '').split())}")
    if sort not in SORTS:
        raise InvalidQueryError(f"tasks cannot be sorted by {sort!r}; choose {', '.join(SORTS)}")
    if not 1 <= limit <= MAX_LIMIT:
        raise InvalidQueryError(f"limit must be from 1 to {MAX_LIMIT}, got {limit}")
    if offset < 0:
        raise InvalidQueryError(f"offset must be at least 0, got {offset}")
