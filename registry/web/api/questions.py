"""Questions about several tasks over HTTP: distances, spaces, and the state of the registry."""

from importlib.metadata import version
from typing import Annotated, Any

from fastapi import Query

from registry.errors import NoRegistryError
from registry.faces import documents
from registry.options import DEFAULT_DISTANCE
from registry.web.api import models
from registry.web.api.routes import READS, UNCHANGED, Registry, Then, answered, known_task, new_router

router = new_router("questions")
PACKAGE = version("task2vec-registry")


def _end(which: str) -> Any:
    return Query(
        pattern=models.REFERENCE, description=f"The task that the distance is {which}.", examples=["mnist"]
    )


@router.get("/distance", dependencies=[READS], responses=UNCHANGED)
def get_distance(
    source: Annotated[str, _end("from")],
    target: Annotated[str, _end("to")],
    registry: Then,
    distance: models.DistanceName = DEFAULT_DISTANCE,
    probe: models.ProbeName = None,
) -> models.DistanceAnswer:
    """The distance from one registered task to another; `t2v distance`."""
    ends = known_task(registry, source), known_task(registry, target)
    value = registry.distance(*ends, name=distance, probe=probe)
    return models.DistanceAnswer(
        source=source, target=target, distance=distance, value=value, nearer_than=value.nearer_than
    )


@router.get("/spaces", dependencies=[READS], responses=UNCHANGED)
def list_spaces(registry: Then) -> models.SpaceList:
    """The spaces that tasks were embedded in."""
    try:
        spaces = registry.spaces()
    except NoRegistryError:
        return models.SpaceList(spaces=[])
    return answered(models.SpaceList, {"spaces": [documents.of_space(space) for space in spaces]})


@router.get("/version")
def get_version(registry: Registry) -> models.VersionAnswer:
    """What changes with every write to the registry, and the version of this package."""
    return models.VersionAnswer(registry=registry.version(), package=PACKAGE)
