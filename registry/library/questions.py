"""The part of ``TaskRegistry`` that compares tasks: nearest tasks, distances, embeddings and their spaces."""

from typing import TYPE_CHECKING, Unpack

from registry.answers import Apart
from registry.distances import get_distance
from registry.index.neighbors import check_k
from registry.ingest.data import data_spec
from registry.library.base import RegistryBase, heals_index
from registry.notebooks import Printed, Records
from registry.options import DEFAULT_DISTANCE, Data, DataOptions, OneOptions, Progress
from registry.records import SpaceRecord
from registry.task_answers import Nearest

if TYPE_CHECKING:
    from registry.ingest.prepare import TaskEmbedding


class Questions(RegistryBase):
    """The part of ``TaskRegistry`` that compares tasks."""

    @heals_index
    def nearest(
        self,
        query: Data,
        *,
        k: int = 10,
        distance: str = DEFAULT_DISTANCE,
        where: str | None = None,
        probe: str | None = None,
        progress: Progress | None = None,
        **options: Unpack[DataOptions],
    ) -> Nearest:
        """The registered tasks that are most like a task.

        Args:
            query: Name of a registered task; data, which is embedded and not remembered, see
                ``registry.options.Data``; or what ``embed`` made of it.
            k: Most neighbours returned, at least 1.
            distance: Name in ``registry.distances.DISTANCES``; an asymmetric one is measured from the
                registered task to the query.
            where: Only among tasks that pass this filter, see ``registry.filters``.
            probe: Loader of the probe, or id of the space, in which to compare; for an embedding its own.
            progress: Called as ``progress(stage, done, total)`` while data is embedded.
            **options: How data is read, see ``registry.options.DataOptions``; what makes an embedding
                comparable, such as the estimator, is that of the space.

        Returns:
            What was asked, and its neighbours, nearest first, ties in order of name; never the query itself.

        Raises:
            InvalidQueryError: If ``k`` is below 1, the filter does not parse, or options are given for a
                registered task or an embedding.
            NotFoundError: If there is no such task, data, distance or probe.
            IngestError: If the data cannot be read.
        """
        check_k(k)
        name = get_distance(distance).name
        query = self._asked(query)
        view = self._view([query], probe, where)
        (point,) = self._locate([query], view, options, progress)
        answer = Nearest((point.query, Records(view.nearest(point, k=k, distance=name))))
        answer.distance = name
        return answer

    @heals_index
    def distance(
        self,
        source: Data,
        target: Data,
        *,
        name: str = DEFAULT_DISTANCE,
        probe: str | None = None,
        **options: Unpack[DataOptions],
    ) -> Apart:
        """Distance from one task to another, each a registered name, a data spec or an embedding.

        Returns:
            A number; its ``nearer_than`` is the share of the pairs of registered tasks that lie farther apart.

        Raises:
            InvalidQueryError: If options are given and there is no data, or two embeddings are of two spaces.
            NotFoundError: If there is no such task, data, distance or probe.
            IngestError: If data cannot be read.
        """
        name = get_distance(name).name
        queries = [self._asked(source), self._asked(target)]
        view = self._view(queries, probe)
        return view.distance(name, *self._locate(queries, view, options))

    def embed(
        self, data: Data, *, progress: Progress | None = None, **options: Unpack[OneOptions]
    ) -> "TaskEmbedding":
        """Embed a labelled dataset without remembering it; the arguments are those of ``add_task``.

        Raises:
            IngestError: If the data cannot be read or makes no task, or an option is out of its range.
            NotFoundError: If there is no such probe or estimator.
        """
        from registry.ingest.prepare import prepare_one

        embedding = prepare_one(data_spec(data), progress, **options).embed(progress)
        type(embedding).printer = Printed.__str__
        return embedding

    def embed_in(
        self,
        data: str,
        probe: str | None = None,
        *,
        progress: Progress | None = None,
        **options: Unpack[DataOptions],
    ) -> "TaskEmbedding":
        """Embed data so that it can be compared with the tasks of a space, without remembering it.

        Args:
            data: A data spec.
            probe: As for ``space``.
            progress: Called as ``progress(stage, done, total)``.
            **options: How data is read, see ``nearest``.

        Raises:
            UntrustedError: If the space was imported, and its probe is a path or code that is not trusted.
            IngestError: If the data or the probe cannot be read.
            NotFoundError: If no task was embedded with that probe.
        """
        return self._embedded(data, self._space(probe), progress, **options)

    def spaces(self) -> Records[SpaceRecord]:
        """The spaces that tasks were embedded in, sorted by id."""
        return Records(self._opened().spaces())

    def space(self, probe: str | None = None) -> SpaceRecord:
        """The space in which questions are asked.

        Args:
            probe: Loader of the probe, or id of the space; if ``None``, that of the built-in probe, or the only
                one.

        Raises:
            NotFoundError: If no task was embedded with that probe.
            InvalidQueryError: If several spaces fit, or there is none at all.
        """
        return self._space(probe)
