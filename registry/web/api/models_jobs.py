"""Uploads and jobs as the REST API takes and gives them."""

from typing import Annotated, Any

from fastapi import Path
from pydantic import Field, StringConstraints

from registry.web.api.models import MAX_TEXT, REFERENCE, Answer, Body, Word
from registry.web.jobs.requests import JobKind
from registry.web.jobs.store import State

ID = r"^[A-Za-z0-9_-]{20,64}$"
JobId = Annotated[str, Path(pattern=ID, description="Id of a job.", examples=["Xw2pZ0YbTz8m1Qf3kLr9sVha"])]
UploadId = Annotated[
    str, Path(pattern=ID, description="Id of an upload.", examples=["p3Vd0nQx7Yk2mZ8sTf1rLw5h"])
]


class UploadAnswer(Answer):
    """Data that was uploaded."""

    upload: str = Field(examples=["p3Vd0nQx7Yk2mZ8sTf1rLw5h"])
    files: int = Field(examples=[40])
    bytes: int = Field(examples=[183200])
    classes: dict[str, int] = Field(examples=[{"cats": 20, "dogs": 20}])
    created_at: str = Field(examples=["2026-01-31T12:00:00+00:00"])
    expires_at: str = Field(examples=["2026-02-01T12:00:00+00:00"])
    kind: str | None = Field(examples=["single_label"], description="What the labels are, if that is clear.")
    samples: int = Field(examples=[40])
    taken: list[str] = Field(examples=[["split 'train', and not 'test'"]])
    passed_over: dict[str, int] = Field(examples=[{"mask": 20}])
    problem: str = Field(examples=[""], description="What an option of the job has to settle, if anything.")


class JobData(Body):
    """The data of a job: one of the three."""

    upload: str | None = Field(None, pattern=ID, examples=["p3Vd0nQx7Yk2mZ8sTf1rLw5h"])
    path: str | None = Field(None, min_length=1, max_length=4096)
    task: str | None = Field(None, pattern=REFERENCE)


class JobOptions(Body):
    """Options of the methods and commands of the same name; each kind of job takes its own."""

    k: int | None = Field(None, ge=1, le=1000, examples=[5])
    distance: str | None = Field(None, max_length=100)
    where: str | None = Field(None, max_length=MAX_TEXT)
    probe: str | None = Field(None, max_length=200)
    num_trials: int | None = Field(None, ge=0, le=1000)
    record: bool | None = Field(None, description="Whether trials on a registered task become results.")
    time_budget: float | None = Field(None, gt=0)
    stop_below: float | None = Field(None, ge=0, le=1)
    given: dict[Annotated[str, StringConstraints(max_length=160)], float] | None = Field(None)
    max_params: float | None = Field(None, gt=0, examples=[30000000])
    max_flops: float | None = Field(None, gt=0)
    licenses: list[Annotated[str, StringConstraints(max_length=200)]] | None = Field(None, max_length=100)
    input_size: float | None = Field(None, gt=0)
    loadable_offline: bool | None = None
    protocol: Word | None = Field(None, description="How the accuracy would be measured.")
    metric: Word | None = Field(None, description="What is expected, such as accuracy.")
    experts: list[Annotated[str, StringConstraints(max_length=160)]] | None = Field(
        None, max_length=100, description="Patterns of names, such as convnext*."
    )
    toys: bool | None = Field(None, description="Whether the small networks that ship are recommended too.")
    published: bool | None = Field(None, description="Whether published results count as evidence.")
    download: bool | None = Field(None, description="Whether trials may fetch weights.")
    anyway: bool | None = Field(None, description="Go on where data or weights are not what was registered.")
    as_new_version: bool | None = Field(None, description="Register other data as the next version.")
    max_samples: int | None = Field(None, ge=2, le=10**9)
    seed: int | None = Field(None, ge=0, lt=2**32)
    split: str | None = Field(None, max_length=200)
    class_level: int | None = Field(None, ge=-100, le=100, description="Folder that names the class: 1, or -1.")
    skip_bad: bool | None = Field(None, description="Whether class folders without samples are left out.")
    image_col: str | None = Field(None, max_length=200, description="Column, or array, of images.")
    text_col: str | None = Field(None, max_length=200, description="Column of texts.")
    label_col: str | None = Field(
        None, max_length=MAX_TEXT, description="Column of classes, or A,B,C of 0 and 1."
    )
    target_col: str | None = Field(None, max_length=MAX_TEXT, description="Column of measured numbers.")
    split_col: str | None = Field(None, max_length=200, description="Column of the split.")
    image_root: str | None = Field(None, max_length=1000, description="Folder of images below the data.")
    image_suffix: str | None = Field(None, max_length=20, description="What names of images end in.")
    delimiter: str | None = Field(None, max_length=9, description="What stands between cells, such as tab.")
    encoding: str | None = Field(None, max_length=40, description="Encoding of text files.")
    channels: str | None = Field(None, max_length=200)
    value_range: tuple[float, float] | None = None
    tolerance: float | None = Field(None, gt=0, lt=1)
    memory_budget: float | None = Field(None, gt=0, lt=2**50)
    batch_size: int | None = Field(None, ge=1, le=10**6)


class NewJob(Body):
    """A request for a job."""

    kind: JobKind = Field(examples=["recommend"])
    data: JobData
    name: Word | None = Field(None, description="Name of the task to be; otherwise what the data is called.")
    tags: list[Word] = Field(default_factory=list, max_length=100)
    options: JobOptions = JobOptions.model_construct()


class JobProgress(Answer):
    """The progress of a job."""

    stage: str = Field(examples=["features"])
    done: int = Field(examples=[120])
    total: int = Field(examples=[800])


class JobError(Answer):
    """Why a job failed, or was cancelled though nobody asked for it."""

    message: str = Field(examples=["the server stopped while this ran; ask again"])


class Job(Answer):
    """A job as it is now."""

    id: str = Field(examples=["Xw2pZ0YbTz8m1Qf3kLr9sVha"])
    kind: JobKind = Field(examples=["recommend"])
    state: State = Field(examples=["running"])
    data: dict[str, str] = Field(examples=[{"upload": "p3Vd0nQx7Yk2mZ8sTf1rLw5h"}])
    options: dict[str, Any] = Field(examples=[{"k": 5}])
    name: str | None = Field(examples=[None])
    tags: list[str] = Field(examples=[[]])
    created_at: str = Field(examples=["2026-01-31T12:00:00+00:00"])
    started_at: str | None = Field(examples=["2026-01-31T12:00:00+00:00"])
    finished_at: str | None = Field(examples=[None])
    progress: JobProgress | None
    result: dict[str, Any] | None = Field(
        examples=[None],
        description="`recommendation`, `neighbors` and `embedding`, or `task`, as the kind of job has them.",
    )
    error: JobError | None = Field(examples=[None])


class JobList(Answer):
    """A page of jobs, the newest first."""

    total: int = Field(examples=[1])
    offset: int = Field(examples=[0])
    limit: int = Field(examples=[50])
    jobs: list[Job]
