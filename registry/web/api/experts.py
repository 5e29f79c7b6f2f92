"""Experts and results over HTTP.

No route adds an expert: that loads a network, and loading some of them runs code.
"""

from pathlib import Path
from typing import Annotated, Any

from fastapi import Query, Request, Response

from registry.errors import NoRegistryError, RegistryError
from registry.faces import documents
from registry.notebooks import Records
from registry.options import in_fields, spelled
from registry.records import ResultRecord
from registry.web.api import models
from registry.web.api.routes import (
    FILE_BODY,
    JSON,
    READS,
    UNCHANGED,
    WRITES,
    Registry,
    Then,
    answered,
    example,
    new_router,
    paged,
)
from registry.web.http.access import demand
from registry.web.http.faults import RefusedError
from registry.web.uploads.uploads import DATA, Uploads

router = new_router("experts")
OfTask = Annotated[str | None, Query(pattern=models.NAME, description="Only results on this task.")]
OfExpert = Annotated[str | None, Query(pattern=models.EXPERT_NAME, description="Only results of this expert.")]


@router.get("/experts", dependencies=[READS], responses=UNCHANGED)
def list_experts(
    request: Request,
    response: Response,
    registry: Then,
    search: Annotated[str | None, Query(max_length=200, description="Part of the name.")] = None,
    limit: models.Limit = 50,
    offset: models.Offset = 0,
) -> models.ExpertList:
    """A page of all experts, in order of name; `t2v expert list`."""
    try:
        experts = registry.experts()
    except NoRegistryError:
        experts = Records()
    matching = [expert for expert in experts if (search or "").lower() in expert.name.lower()]
    shown = [documents.of_expert(expert) for expert in matching[offset : offset + limit]]
    return paged(models.ExpertList, request, response, {"experts": shown}, len(matching), limit, offset)


@router.get("/experts/{name:path}", dependencies=[READS], responses=UNCHANGED)
def get_expert(name: models.ExpertName, registry: Then) -> models.Expert:
    """One expert; `t2v expert show`."""
    return answered(models.Expert, documents.of_expert(registry.expert(name)))


@router.post("/experts/{name:path}/aliases", dependencies=[WRITES, JSON], status_code=201)
def add_expert_alias(name: models.ExpertName, other: models.OtherName, registry: Registry) -> models.Expert:
    """Let another name stand for the weights of an expert; `t2v expert alias`."""
    return answered(models.Expert, documents.of_expert(registry.alias_expert(name, other.alias)))


@router.delete("/experts/{name:path}/aliases/{alias:path}", dependencies=[WRITES], status_code=204)
def remove_expert_alias(name: models.ExpertName, alias: models.ExpertName, registry: Registry) -> None:
    """Let another name of an expert stand for it no longer; `t2v expert alias --remove`."""
    registry.unalias_expert(name, alias)


@router.delete("/experts/{name:path}", dependencies=[WRITES], status_code=204)
def remove_expert(
    name: models.ExpertName,
    request: Request,
    registry: Registry,
    purge: Annotated[bool, Query(description="Delete it, with its results, for good; for admins.")] = False,
) -> None:
    """Take an expert out of every list and answer; `t2v expert remove`."""
    demand(request, "admin" if purge else "write")
    registry.remove_expert(name, purge=purge)


@router.post("/experts/{name:path}/restore", dependencies=[WRITES])
def restore_expert(name: models.ExpertName, registry: Registry) -> models.Expert:
    """Bring back an expert that was removed; `t2v expert restore`."""
    registry.restore_expert(name)
    return answered(models.Expert, documents.of_expert(registry.expert(name)))


@router.get("/results", dependencies=[READS], responses=UNCHANGED)
def list_results(
    request: Request,
    response: Response,
    registry: Then,
    task: OfTask = None,
    expert: OfExpert = None,
    limit: models.Limit = 50,
    offset: models.Offset = 0,
) -> models.ResultList:
    """A page of results; `t2v result list`."""
    try:
        results = registry.results(task=task, expert=expert)
    except NoRegistryError:
        results = Records()
    shown = list(results[offset : offset + limit])
    return paged(models.ResultList, request, response, {"results": shown}, len(results), limit, offset)


@router.post("/results", dependencies=[WRITES, JSON], status_code=201, responses=example(201, models.RESULT))
def add_result(result: models.NewResult, registry: Registry) -> ResultRecord:
    """Remember a score that was measured elsewhere; `t2v result add`."""
    measured = result.model_dump(exclude={"task", "expert"})
    return registry.add_result(result.task, result.expert, **measured)


@router.post("/results/import", dependencies=[WRITES], openapi_extra=FILE_BODY)
async def import_results(
    request: Request, registry: Registry, rules: Annotated[models.ImportRules, Query()]
) -> models.ImportedResults:
    """Take the results of a CSV file, or of what a tracker wrote, alone or in a zip; `t2v result import`."""
    uploads: Uploads = request.app.state.uploads
    said = rules.model_dump(exclude_defaults=True)

    def take(part: Path) -> dict[str, Any]:
        place = part / DATA
        inside = list(place.iterdir())
        place = inside[0] if len(inside) == 1 and inside[0].is_file() else place
        try:
            imported = registry.import_results(place, **said)
        except RegistryError as error:
            raise RefusedError(400, str(error).replace(str(place), "the file")) from error
        document = documents.of_imported_results(imported, dry_run=rules.dry_run)
        problems = [problem.replace(str(place), "the file") for problem in document["problems"]]
        return document | {"problems": spelled(problems, in_fields)}

    return answered(models.ImportedResults, await uploads.receive_for(request, take))
