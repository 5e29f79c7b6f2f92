"""Uploads and jobs over HTTP; whoever knows an id may read what it stands for."""

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator
from typing import Any

from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from registry.errors import NotFoundError
from registry.web.api import models, models_jobs
from registry.web.api.routes import FILE_BODY, JSON, WRITES, new_router, paged
from registry.web.http.access import actor_of
from registry.web.jobs.jobs import Jobs
from registry.web.jobs.store import Job
from registry.web.uploads.uploads import Upload, Uploads

router = new_router("jobs")
LOOK_SECONDS = 0.15
HEARTBEAT_SECONDS = 15.0
RETRY_MS = 2000
NO_STORE = {"Cache-Control": "no-store"}
EVENTS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Server-sent events: `progress` with the job as JSON, whenever it changes; last `end`.",
        "content": {
            "text/event-stream": {
                "schema": {"type": "string"},
                "example": 'event: progress\ndata: {"state": "done"}\n\nevent: end\ndata: {}\n\n',
            }
        },
    }
}


@router.post("/uploads", dependencies=[WRITES], status_code=201, openapi_extra=FILE_BODY)
async def upload(request: Request, response: Response) -> models_jobs.UploadAnswer:
    """Send a file of data, such as a zip of a folder, as the body or as the field `file` of a form."""
    uploads: Uploads = request.app.state.uploads
    received = await uploads.receive(request)
    response.headers.update({**NO_STORE, "Location": f"/api/v1/uploads/{received.id}"})
    return _upload(received)


@router.get("/uploads/{upload_id}")
def get_upload(
    upload_id: models_jobs.UploadId, request: Request, response: Response
) -> models_jobs.UploadAnswer:
    """An upload."""
    response.headers.update(NO_STORE)
    return _upload(request.app.state.uploads.get(upload_id))


@router.delete("/uploads/{upload_id}", dependencies=[WRITES], status_code=204)
def remove_upload(upload_id: models_jobs.UploadId, request: Request) -> None:
    """Remove an upload before it expires."""
    request.app.state.uploads.remove(upload_id)


@router.post("/jobs", dependencies=[WRITES, JSON], status_code=202)
def submit(new: models_jobs.NewJob, request: Request, response: Response) -> models_jobs.Job:
    """Ask for a recommendation or for neighbours of new data, or register it as a task."""
    job = _jobs(request).submit(
        new.kind,
        new.data.model_dump(exclude_none=True),
        name=new.name,
        tags=new.tags,
        options=new.options.model_dump(exclude_none=True),
        actor=actor_of(request),
    )
    response.headers.update({**NO_STORE, "Location": f"/api/v1/jobs/{job.id}"})
    return _job(job)


@router.get("/jobs", dependencies=[WRITES])
def list_jobs(
    request: Request, response: Response, limit: models.Limit = 50, offset: models.Offset = 0
) -> models_jobs.JobList:
    """A page of jobs, the newest first; needs the role write."""
    jobs = _jobs(request)
    page = [dataclasses.asdict(job) for job in jobs.list(limit=limit, offset=offset)]
    response.headers.update(NO_STORE)
    return paged(models_jobs.JobList, request, response, {"jobs": page}, jobs.count(), limit, offset)


@router.get("/jobs/{job_id}")
def get_job(job_id: models_jobs.JobId, request: Request, response: Response) -> models_jobs.Job:
    """A job as it is now."""
    response.headers.update(NO_STORE)
    return _job(_jobs(request).get(job_id))


@router.get("/jobs/{job_id}/events", responses=EVENTS, response_class=StreamingResponse)
async def follow(job_id: models_jobs.JobId, request: Request) -> StreamingResponse:
    """The progress of a job while it runs; ends with the job."""
    jobs = _jobs(request)
    await run_in_threadpool(jobs.get, job_id)
    return StreamingResponse(events(jobs, job_id), media_type="text/event-stream", headers=NO_STORE)


@router.post("/jobs/{job_id}/cancel", dependencies=[WRITES])
def cancel(job_id: models_jobs.JobId, request: Request, response: Response) -> models_jobs.Job:
    """End a job and remove its files; a job that has ended stays as it is."""
    response.headers.update(NO_STORE)
    return _job(_jobs(request).cancel(job_id))


@router.delete("/jobs/{job_id}", dependencies=[WRITES], status_code=204)
def remove_job(job_id: models_jobs.JobId, request: Request) -> None:
    """Remove a job that has ended, with its answer."""
    _jobs(request).remove(job_id)


async def events(jobs: Jobs, job_id: str) -> AsyncIterator[str]:
    """A job as server-sent events, until it ends or the server stops."""
    yield f"retry: {RETRY_MS}\n\n"
    sent, silent = None, 0.0
    while True:
        job = jobs.peek(job_id)
        if job is None:
            try:
                job = await run_in_threadpool(jobs.get, job_id)
            except NotFoundError:
                break
        if job != sent:
            sent, silent = job, 0.0
            yield f"event: progress\ndata: {_job(job).model_dump_json()}\n\n"
        if job.is_over or jobs.is_closing:
            break
        await asyncio.sleep(LOOK_SECONDS)
        silent += LOOK_SECONDS
        if silent >= HEARTBEAT_SECONDS:  # so that proxies keep the line open, and a reader who left is noticed
            silent = 0.0
            yield ": still here\n\n"
    yield f"event: end\ndata: {json.dumps({})}\n\n"


def _jobs(request: Request) -> Jobs:
    jobs: Jobs = request.app.state.jobs
    return jobs


def _job(job: Job) -> models_jobs.Job:
    return models_jobs.Job.model_validate(dataclasses.asdict(job))


def _upload(upload: Upload) -> models_jobs.UploadAnswer:
    values = dataclasses.asdict(upload)
    return models_jobs.UploadAnswer(upload=values.pop("id"), **values)
