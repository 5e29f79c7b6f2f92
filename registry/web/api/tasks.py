"""Tasks over HTTP: lists, cards, neighbours, recommendations; tags, aliases, removal."""

from typing import Annotated

from fastapi import Query, Request, Response

from registry.answers import Recommendation
from registry.errors import NoRegistryError
from registry.faces import documents
from registry.options import DEFAULT_DISTANCE
from registry.task_answers import SORTS
from registry.web.api import models
from registry.web.api.routes import (
    JSON,
    READS,
    UNCHANGED,
    WRITES,
    Registry,
    Then,
    answered,
    example,
    known_task,
    new_router,
    paged,
)
from registry.web.http.access import demand
from registry.web.uploads.roots import allowed_path

router = new_router("tasks")
Sort = Annotated[str, Query(pattern=f"^({'|'.join(SORTS)})$", description="Column to sort by.")]
Search = Annotated[
    str | None,
    Query(max_length=200, description="Words that the name or a tag must contain.", examples=["digits"]),
]


@router.get("/tasks", dependencies=[READS], responses=UNCHANGED)
def list_tasks(
    request: Request,
    response: Response,
    registry: Then,
    search: Search = None,
    where: models.Where = None,
    sort: Sort = "name",
    descending: bool = False,
    limit: models.Limit = 50,
    offset: models.Offset = 0,
) -> models.TaskList:
    """A page of the latest versions of all tasks; `t2v task list`."""
    try:
        page = registry.find_tasks(
            search=search, where=where, sort=sort, descending=descending, limit=limit, offset=offset
        )
        total, tasks = page.total, [documents.of_task(task) for task in page.tasks]
    except NoRegistryError:
        total, tasks = 0, []
    return paged(models.TaskList, request, response, {"tasks": tasks}, total, limit, offset)


@router.get("/tasks/{name}", dependencies=[READS], responses=UNCHANGED)
def get_task(name: models.TaskReference, registry: Then) -> models.TaskCard:
    """A task with its data, settings and embeddings; `t2v task show`."""
    task = registry.task(name)
    return answered(
        models.TaskCard, documents.of_task_card(task, registry.embeddings_of(f"{task.name}@{task.version}"))
    )


@router.get("/tasks/{name}/history", dependencies=[READS], responses=UNCHANGED)
def get_history(name: models.TaskName, registry: Then) -> models.History:
    """All versions of a task, and who changed it; `t2v task history`."""
    return answered(models.History, documents.of_history(registry.history(name)))


@router.get("/tasks/{name}/neighbors", dependencies=[READS], responses=UNCHANGED)
def get_neighbors(
    name: models.TaskReference,
    registry: Then,
    k: models.Neighbours = 10,
    distance: models.DistanceName = DEFAULT_DISTANCE,
    where: models.Where = None,
    probe: models.ProbeName = None,
) -> models.Neighbors:
    """The registered tasks that are most like a task; `t2v nearest`."""
    query, neighbors = registry.nearest(
        known_task(registry, name), k=k, distance=distance, where=where, probe=probe
    )
    return answered(models.Neighbors, documents.of_neighbors(query, distance, neighbors))


@router.get(
    "/tasks/{name}/recommendation",
    dependencies=[READS],
    responses={**UNCHANGED, **example(200, models.RECOMMENDATION)},
)
def get_recommendation(
    name: models.TaskReference,
    registry: Then,
    k: Annotated[int, Query(ge=1, le=1000, description="Most experts.")] = 5,
    max_params: Annotated[float | None, Query(gt=0, description="Most parameters.")] = None,
    max_flops: Annotated[float | None, Query(gt=0, description="Most multiply-adds for one image.")] = None,
    input_size: Annotated[float | None, Query(gt=0, description="Most pixels on a side.")] = None,
    licenses: Annotated[
        list[Annotated[str, Query(max_length=200)]] | None,
        Query(max_length=100, description="SPDX identifiers, of which an expert must have one."),
    ] = None,
    probe: models.ProbeName = None,
    protocol: Annotated[
        str | None, Query(max_length=128, description="How the accuracy would be measured.")
    ] = None,
    experts: Annotated[
        list[Annotated[str, Query(max_length=160)]] | None,
        Query(max_length=100, description="Patterns of names, such as convnext*."),
    ] = None,
    toys: Annotated[
        bool, Query(description="Whether the small networks that ship are recommended too.")
    ] = False,
    published: Annotated[bool, Query(description="Whether published results count as evidence.")] = True,
) -> Recommendation:
    """The experts to start from for a registered task; `t2v recommend`. Trials, and new data, need a job."""
    return registry.recommend(
        known_task(registry, name),
        k=k,
        max_params=max_params,
        max_flops=max_flops,
        input_size=input_size,
        licenses=licenses or (),
        probe=probe,
        protocol=protocol,
        experts=experts or (),
        toys=toys,
        published=published,
    )


@router.patch("/tasks/{name}", dependencies=[WRITES, JSON])
def change_tags(name: models.TaskName, change: models.TagChange, registry: Registry) -> models.Task:
    """Add and take away tags; `t2v task tag`."""
    return answered(
        models.Task, documents.of_task(registry.tag_task(name, add=change.add, remove=change.remove))
    )


@router.post("/tasks/{name}/move", dependencies=[WRITES, JSON])
def move_task(
    name: models.TaskReference, place: models.NewPlace, request: Request, registry: Registry
) -> models.Task:
    """Read the data of a task from where it is now, on this server, if it is the same; `t2v task move`."""
    path = allowed_path(place.data, request.app.state.settings.roots)
    return answered(models.Task, documents.of_task(registry.move_task(name, str(path))))


@router.delete("/tasks/{name}", dependencies=[WRITES], status_code=204)
def remove_task(
    name: models.TaskName,
    request: Request,
    registry: Registry,
    purge: Annotated[bool, Query(description="Delete it for good; for admins.")] = False,
) -> None:
    """Take a task out of every list and answer; `t2v task remove`."""
    demand(request, "admin" if purge else "write")
    registry.remove_task(name, purge=purge)


@router.post("/tasks/{name}/restore", dependencies=[WRITES])
def restore_task(name: models.TaskName, registry: Registry) -> models.Task:
    """Bring back a task that was removed; `t2v task restore`."""
    registry.restore_task(name)
    return answered(models.Task, documents.of_task(registry.task(name)))


@router.post("/tasks/{name}/aliases", dependencies=[WRITES, JSON], status_code=201)
def add_alias(name: models.TaskName, alias: models.NewAlias, registry: Registry) -> models.Task:
    """Let name@alias stand for one version of a task; `t2v task alias`."""
    reference = name if alias.version is None else f"{name}@{alias.version}"
    return answered(models.Task, documents.of_task(registry.alias_task(reference, alias.alias)))


@router.delete("/tasks/{name}/aliases/{alias}", dependencies=[WRITES], status_code=204)
def remove_alias(name: models.TaskName, alias: models.AliasName, registry: Registry) -> None:
    """Let an alias stand for nothing; `t2v task alias --remove`."""
    registry.unalias_task(name, alias)
