"""Run many pieces of work by an engine of a name: one after the other, in processes, or on a Ray cluster.

    works = [EmbedWork("./flowers", settings), EmbedWork("./birds", settings)]
    for outcome in run_works(works, "processes", EngineSettings(jobs=4)):
        ...

All engines give the same bytes on the same kind of machine, since each piece of work has the same number of
threads in all of them.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from indexer.engines.processes import run_processes
from indexer.engines.ray_cluster import run_ray
from indexer.engines.work import EngineSettings, Outcomes, Work, attempt
from indexer.errors import SettingsError, UnknownNameError

DEFAULT_ENGINE = "serial"

HEEDED_BY_SOME = ("jobs", "address", "gpus_per_task", "memory_per_task")
"""Settings that not every engine heeds."""


@dataclass(frozen=True)
class Engine:
    """A way to run many pieces of work.

    Attributes:
        run: Work, which is taken as it is needed, and settings, to outcomes as they come.
    """

    name: str
    summary: str
    run: Callable[[Iterable[Work], EngineSettings], Outcomes]
    heeds: frozenset[str] = frozenset()  # those of ``HEEDED_BY_SOME`` that change something


def _run_serial(works: Iterable[Work], settings: EngineSettings) -> Outcomes:
    for number, work in enumerate(works):
        yield attempt(number, work, settings.threads)


ENGINES: dict[str, Engine] = {
    engine.name: engine
    for engine in (
        Engine("serial", "one after the other, in this process", _run_serial),
        Engine(
            "processes",
            "in processes of this machine, one for each core by default",
            run_processes,
            frozenset({"jobs"}),
        ),
        Engine(
            "ray",
            "on the machines of a Ray cluster, or on this one; needs the extra ray",
            run_ray,
            frozenset({"jobs", "address", "gpus_per_task", "memory_per_task"}),
        ),
    )
}


def get_engine(name: str) -> Engine:
    """Look up an engine; ``UnknownNameError`` if there is none of that name."""
    if name not in ENGINES:
        raise UnknownNameError("engine", name, ENGINES)
    return ENGINES[name]


def run_works(
    works: Iterable[Work], engine: str = DEFAULT_ENGINE, settings: EngineSettings | None = None
) -> Outcomes:
    """Run work by an engine.

    Nothing runs before the first outcome is asked for, and closing the iterator ends what still runs.

    Args:
        works: Taken as it is needed, a few pieces ahead.
        engine: Name in ``ENGINES``.
        settings: How much at once; the defaults if ``None``.

    Returns:
        Outcomes as they come, in any order, see ``indexer.engines.work.Outcomes``.

    Raises:
        UnknownNameError: If there is no such engine.
        SettingsError: If a setting is given that the engine does not heed.
    """
    chosen, settings = get_engine(engine), settings or EngineSettings()
    check_heeded(chosen, settings)
    return chosen.run(works, settings)


def check_heeded(engine: Engine, settings: EngineSettings) -> None:
    """Refuse settings that would change nothing; ``SettingsError`` if there is one."""
    for name in HEEDED_BY_SOME:
        if getattr(settings, name) is not None and name not in engine.heeds:
            able = " or ".join(other.name for other in ENGINES.values() if name in other.heeds)
            raise SettingsError(f"the engine {engine.name} does not heed {name}; use {able}, or leave it out")
