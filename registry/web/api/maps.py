"""The map and the clusters of all tasks over HTTP.

Both take a while the first time, and are made once, by one thread; other readers wait for a while, and are then
asked to try again.
"""

from collections.abc import Callable
from typing import Annotated, TypeVar

from fastapi import Query, Request

from registry.caching import LastAnswers
from registry.faces import documents
from registry.options import CLUSTER_METHODS, DEFAULT_DISTANCE
from registry.web.api import models, models_maps
from registry.web.api.routes import READS, UNCHANGED, Then, answered, known_task, new_router
from registry.web.http.faults import RefusedError

Made = TypeVar("Made")

router = new_router("maps")
WAIT_SECONDS = 60.0
RETRY_SECONDS = 5
MAX_QUERIES = 20
Queries = Annotated[
    list[Annotated[str, Query(pattern=models.REFERENCE)]] | None,
    Query(max_length=MAX_QUERIES, description="Tasks to mark on the map, each with its nearest tasks."),
]


@router.get("/map", dependencies=[READS], responses=UNCHANGED)
def get_map(
    request: Request,
    registry: Then,
    query: Queries = None,
    where: models.Where = None,
    probe: models.ProbeName = None,
) -> models_maps.Map:
    """All tasks in two dimensions, those that are alike near to each other; `t2v map`.

    There is one layout: readers cannot ask for another one, which would be kept on the disk.
    """
    asked = tuple(known_task(registry, name) for name in query or ())
    shown = _made(
        request,
        (registry.version(), "api map", asked, where, probe),
        lambda: registry.map(asked, where=where, probe=probe),
    )
    return answered(models_maps.Map, documents.of_map(shown))


@router.get("/clusters", dependencies=[READS], responses=UNCHANGED)
def get_clusters(
    request: Request,
    registry: Then,
    method: Annotated[str, Query(pattern=f"^({'|'.join(CLUSTER_METHODS)})$")] = "agglomerative",
    num_clusters: Annotated[
        int | None, Query(ge=1, le=10**6, description="Number of clusters; unless given, chosen.")
    ] = None,
    cut_height: Annotated[float | None, Query(gt=0, description="Mean distance within a cluster.")] = None,
    distance: models.DistanceName = DEFAULT_DISTANCE,
    where: models.Where = None,
    probe: models.ProbeName = None,
) -> models_maps.Clusters:
    """The tasks in clusters of those that are alike; `t2v cluster`."""
    clustering = _made(
        request,
        (registry.version(), "api clusters", method, num_clusters, cut_height, distance, where, probe),
        lambda: registry.clusters(
            method=method,
            num_clusters=num_clusters,
            cut_height=cut_height,
            distance=distance,
            where=where,
            probe=probe,
        ),
    )
    return answered(models_maps.Clusters, documents.of_clustering(clustering))


def _made(request: Request, key: tuple[object, ...], make: Callable[[], Made]) -> Made:
    """The answer for this version of the registry, kept or made now.

    Raises:
        RefusedError: If it takes longer than a reader waits; it is made all the same.
    """
    kept: LastAnswers = request.app.state.kept
    answer = kept.wait(key, make, WAIT_SECONDS)
    if answer is None:
        raise RefusedError(
            503,
            f"this is still being made; ask again in {RETRY_SECONDS} seconds",
            {"Retry-After": str(RETRY_SECONDS)},
        )
    return answer
