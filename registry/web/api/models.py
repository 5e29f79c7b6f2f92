"""What the REST API takes and gives, for FastAPI and its OpenAPI document: the documents of ``t2v --json``.

Answers of the registry that are documents themselves are given as they are; only their examples are here.
"""

from typing import Annotated, Any

from fastapi import Path, Query
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from registry import answers
from registry.notebooks import to_json
from registry.records import Kind, ResultRecord

NAME = r"^[A-Za-z0-9._-]{1,128}$"
EXPERT_NAME = r"^[A-Za-z0-9._/:-]{1,160}$"
REFERENCE = r"^[A-Za-z0-9._-]{1,128}(@[A-Za-z0-9._-]{1,128})?$"
MAX_TEXT = 2000

TaskName = Annotated[str, Path(pattern=NAME, description="Name of a task.", examples=["mnist"])]
TaskReference = Annotated[
    str, Path(pattern=REFERENCE, description="A task: name, name@version or name@alias.", examples=["mnist"])
]
AliasName = Annotated[str, Path(pattern=NAME, description="An alias.", examples=["champion"])]
ExpertName = Annotated[
    str, Path(pattern=EXPERT_NAME, description="Name of an expert.", examples=["resnet14w32.mnist"])
]
Where = Annotated[
    str | None,
    Query(
        max_length=MAX_TEXT, description="A filter on tasks.", examples=["num_classes < 20 and tags = 'photo'"]
    ),
]
Limit = Annotated[int, Query(ge=1, le=1000, description="Most rows of the answer.")]
Offset = Annotated[int, Query(ge=0, le=10**9, description="Rows that are skipped.")]
Neighbours = Annotated[int, Query(ge=1, le=1000, description="Most neighbours.")]
DistanceName = Annotated[str, Query(max_length=100, description="Name of a distance, see `t2v distances`.")]
ProbeName = Annotated[
    str | None,
    Query(max_length=200, description="Id of a space, or name of its probe; by default the built-in one."),
]
_QUERY = answers.Query("mnist", 1, "deac4466713c82ef")
_EXPERT = answers.RecommendedExpert(
    1, "resnet14w32.mnist", 0.87, (0.71, 0.98), 0.02, 685994, "apache-2.0",
    'from indexer import load_expert; network = load_expert("resnet14w32.mnist")',
    answers.Evidence((answers.EvidenceNeighbor("kmnist", 0.31, 0.88),), 46),
)  # fmt: skip
_BASELINES = {"static": answers.Baseline("resnet14w32.tiny_imagenet", 0.81)}
_NEIGHBOR = answers.Neighbor(1, "kmnist", 1, 0.31, 10, 800, ("handwriting",), 0.83)
NEIGHBORS = to_json({"query": _QUERY, "distance": "task2vec", "neighbors": [_NEIGHBOR]})
RECOMMENDATION = to_json(answers.Recommendation(_QUERY, (_EXPERT,), _BASELINES))
RESULT = to_json(
    ResultRecord("mnist", "resnet14w32.kmnist", 0.91, seed=0, created_at="2026-01-31T12:00:00+00:00")
)
"""Examples of the dataclasses that the API gives as they are."""

Word = Annotated[str, StringConstraints(pattern=NAME)]
ExpertWord = Annotated[str, StringConstraints(pattern=EXPERT_NAME)]


class Answer(BaseModel):
    """What the API gives."""


class Body(BaseModel):
    """What the API takes; an unknown field is an error."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class ErrorDetail(Answer):
    """One thing that is wrong with a request."""

    where: str = Field(examples=["query limit"])
    message: str = Field(examples=["input should be less than or equal to 1000"])


class ErrorBody(Answer):
    """What went wrong, in one sentence."""

    status: int = Field(examples=[404])
    code: str = Field(examples=["not_found"])
    message: str = Field(examples=["no task is named 'mnits'; did you mean mnist?"])
    details: list[ErrorDetail] = Field(examples=[[]])


class ErrorAnswer(Answer):
    """Every error of the API."""

    error: ErrorBody


class Task(Answer):
    """A task in a list."""

    task: str = Field(examples=["mnist"])
    version: int = Field(examples=[1])
    kind: Kind = Field(examples=["single_label"])
    head_metric: str = Field(examples=["balanced accuracy"])
    num_classes: int = Field(examples=[10])
    num_samples: int = Field(examples=[800])
    fingerprint: str = Field(examples=["9b9f4d0c9f1f2a7d"])
    tags: list[str] = Field(examples=[["digits", "handwriting"]])
    aliases: list[str] = Field(examples=[["champion"]])
    created_at: str = Field(examples=["2026-01-31T12:00:00+00:00"])


class TaskList(Answer):
    """A page of tasks."""

    total: int = Field(examples=[1])
    offset: int = Field(examples=[0])
    limit: int = Field(examples=[50])
    tasks: list[Task]


class TaskEmbedding(Answer):
    """The embedding of a task in one space."""

    space: str = Field(examples=["deac4466713c82ef"])
    probe: str = Field(examples=["resnet14w32.tiny_imagenet"])
    estimator: str = Field(examples=["signed"])
    pooling: str = Field(examples=["filter_mean"])
    num_samples_used: int = Field(examples=[800])
    head_accuracy: float = Field(examples=[0.93])
    head_loss: float = Field(examples=[0.21])
    norm: float = Field(examples=[0.91])
    relative_error: float = Field(examples=[0.08])
    seed: int = Field(examples=[0])
    seconds: float = Field(examples=[6.5])


class TaskCard(Task):
    """A task with its data, settings and embeddings."""

    data: str = Field(examples=["/data/mnist"])
    settings: str = Field(examples=['{"max_samples": 2000, "seed": 0, "split": null}'])
    class_names: list[str] = Field(examples=[["0", "1", "2"]])
    builtin: bool = Field(examples=[True])
    num_samples_drawn: int = Field(examples=[800])
    tolerance: float | None = Field(examples=[None])
    embeddings: list[TaskEmbedding]


class AuditLine(Answer):
    """Who wrote what, when, with which versions of the libraries."""

    at: str = Field(examples=["2026-01-31T12:00:00+00:00"])
    actor: str = Field(examples=["ada"])
    host: str = Field(examples=["lab7"])
    process_id: int = Field(examples=[4711])
    action: str = Field(examples=["task.add"])
    subject: str = Field(examples=["mnist@1"])
    details: dict[str, Any] = Field(examples=[{"space": "deac4466713c82ef"}])
    versions: dict[str, Any] = Field(examples=[{"torch": "2.15.0"}])


class TaskVersion(Task):
    """A version of a task, removed or not."""

    data: str = Field(examples=["/data/mnist"])
    settings: str = Field(examples=['{"max_samples": 2000, "seed": 0, "split": null}'])
    builtin: bool = Field(examples=[False])
    removed_at: str | None = Field(examples=[None])


class History(Answer):
    """All versions of a task, and who changed it."""

    task: str = Field(examples=["mnist"])
    versions: list[TaskVersion]
    audit: list[AuditLine]


class Neighbors(Answer):
    """The answer of nearest."""

    query: answers.Query
    distance: str
    neighbors: list[answers.Neighbor]

    model_config = ConfigDict(json_schema_extra={"examples": [NEIGHBORS]})


class Expert(Answer):
    """A pretrained model that can be loaded."""

    expert: str = Field(examples=["resnet14w32.mnist"])
    loader: str = Field(examples=["resnet14w32.mnist"])
    source_task: str = Field(examples=["mnist"])
    source_accuracy: float | None = Field(examples=[0.98])
    num_params: int | None = Field(examples=[685994])
    flops: int | None = Field(examples=[43000000])
    input_size: int | None = Field(examples=[64])
    license: str = Field(examples=["apache-2.0"])
    cached_as: str = Field(examples=[""])
    toy: bool = Field(examples=[True])
    aliases: list[str] = Field(examples=[[]])
    builtin: bool = Field(examples=[True])
    created_at: str = Field(examples=["2026-01-31T12:00:00+00:00"])


class ExpertList(Answer):
    """A page of experts."""

    total: int = Field(examples=[1])
    offset: int = Field(examples=[0])
    limit: int = Field(examples=[50])
    experts: list[Expert]


class ResultList(Answer):
    """A page of results."""

    total: int = Field(examples=[1])
    offset: int = Field(examples=[0])
    limit: int = Field(examples=[50])
    results: list[ResultRecord] = Field(examples=[[RESULT]])


class DistanceAnswer(Answer):
    """The distance from one task to another."""

    source: str = Field(examples=["mnist"])
    target: str = Field(examples=["kmnist"])
    distance: str = Field(examples=["task2vec"])
    value: float = Field(examples=[0.31])
    nearer_than: float | None = Field(
        examples=[0.83], description="Share of the pairs of registered tasks that lie farther apart."
    )


class Space(Answer):
    """A space that tasks were embedded in."""

    space: str = Field(examples=["deac4466713c82ef"])
    probe: str = Field(examples=["resnet14w32.tiny_imagenet"])
    probe_source: str = Field(examples=["resnet14w32.tiny_imagenet"])
    estimator: str = Field(examples=["signed"])
    pooling: str = Field(examples=["filter_mean"])
    dim: int = Field(examples=[928])
    domain_dim: int = Field(examples=[256])
    builtin: bool = Field(examples=[True])


class SpaceList(Answer):
    """All spaces."""

    spaces: list[Space]


class VersionAnswer(Answer):
    """The state of the registry, and what serves it."""

    registry: str = Field(description="Changes with every write; empty where there is no registry yet.")
    package: str = Field(examples=["0.1.0"])

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"registry": "f36632ad56d1efb81b8e5120", "package": "0.1.0"}]}
    )


class NewResult(Body):
    """A score that was measured elsewhere."""

    task: Word = Field(examples=["mnist"])
    expert: ExpertWord = Field(examples=["resnet14w32.kmnist"])
    accuracy: float = Field(examples=[0.91])
    metric: Word = Field("accuracy", examples=["accuracy"])
    protocol: Word = Field("unspecified", examples=["linear_probe_20shot"])
    seed: int | None = Field(None, ge=0, lt=2**32, examples=[0])
    source: str = Field("", max_length=MAX_TEXT, examples=["table 3 of our report"])
    run_id: str = Field("", max_length=200, examples=["8f3a"])
    lower_is_better: bool | None = Field(None, examples=[None])
    anyway: bool = Field(False, description="Mark it where data or weights are not what was registered.")
    as_new_version: bool = Field(False, description="Register other data as the next version.")


class ImportRules(Body):
    """How results are taken, see `t2v result import`."""

    task_from: list[str] = Field(default_factory=list, max_length=100, examples=[["param:dataset"]])
    expert_from: list[str] = Field(default_factory=list, max_length=100, examples=[["param:model"]])
    metric: list[str] = Field(default_factory=list, max_length=100, examples=[["val_acc=accuracy"]])
    protocol: str = Field("", max_length=128, examples=["fine_tuned"])
    step: str = Field("", max_length=10, examples=["last"])
    skip_bad: bool = Field(False, description="Take the good rows of a CSV file.")
    unregistered: bool = Field(False, description="Take tasks and experts that are not registered.")
    dry_run: bool = Field(False, description="Write nothing.")
    anyway: bool = Field(False, description="Mark those whose data or weights are not what was registered.")
    as_new_version: bool = Field(False, description="Register other data as the next version.")


class ImportedResults(Answer):
    """Results that were taken from a file."""

    added: int = Field(examples=[2])
    problems: list[str] = Field(examples=[[]])
    results: list[ResultRecord] = Field(examples=[[]])
    present: int = Field(examples=[0], description="How many were there already.")
    runs: int = Field(examples=[2])
    taken: list[str] = Field(examples=[["Read 2 runs: 2 of MLflow."]])


class TagChange(Body):
    """Tags to add to a task, and to take away."""

    add: list[Word] = Field(default_factory=list, max_length=100, examples=[["grey"]])
    remove: list[Word] = Field(default_factory=list, max_length=100, examples=[["draft"]])


class NewPlace(Body):
    """Where the data of a task is now."""

    data: str = Field(min_length=1, max_length=4096, examples=["/data/flowers"])


class OtherName(Body):
    """Another name of the weights of an expert."""

    alias: ExpertWord = Field(examples=["timm:resnet50.a1_in1k"])


class NewAlias(Body):
    """A name for a version of a task."""

    alias: Word = Field(examples=["champion"])
    version: int | None = Field(None, ge=1, le=10**9, description="By default the latest.", examples=[1])
