"""Maps and clusters as the REST API gives them."""

from pydantic import Field

from registry.map_answers import TagShare
from registry.web.api.models import Answer


class MapTask(Answer):
    """Where a task lies."""

    task: str = Field(examples=["mnist"])
    version: int = Field(examples=[1])
    x: float = Field(examples=[0.12])
    y: float = Field(examples=[-0.31])
    placed: bool = Field(examples=[False], description="Whether it was placed after the others were laid out.")


class NearTask(Answer):
    """A task with its distance."""

    task: str = Field(examples=["kmnist"])
    distance: float = Field(examples=[0.31])


class MapQuery(Answer):
    """A query of a map: where it lies, and what is nearest to it."""

    query: str = Field(examples=["mnist"])
    x: float = Field(examples=[0.12])
    y: float = Field(examples=[-0.31])
    nearest: list[NearTask]


class Map(Answer):
    """All tasks in two dimensions, in units of the distance, and how far that can be trusted."""

    space: str = Field(examples=["deac4466713c82ef"])
    distance: str = Field(examples=["task2vec"])
    method: str = Field(examples=["SMACOF on all distances"])
    seed: int = Field(examples=[0])
    stress: float | None = Field(examples=[0.21])
    trustworthiness: float | None = Field(examples=[0.92])
    num_neighbors: int = Field(examples=[5])
    num_measured: int = Field(examples=[54])
    num_landmarks: int = Field(examples=[0])
    notes: list[str] = Field(examples=[[]])
    tasks: list[MapTask]
    queries: list[MapQuery] = Field(examples=[[]])


class Silhouette(Answer):
    """One of the numbers that were compared to choose the clusters."""

    number: int = Field(examples=[7])
    silhouette: float | None = Field(examples=[0.29])


class Cluster(Answer):
    """Tasks that are alike."""

    cluster: int = Field(examples=[1])
    label: str = Field(examples=["mnist (handwriting)"])
    size: int = Field(examples=[12])
    medoid: str = Field(examples=["mnist"])
    radius: float | None = Field(examples=[0.28])
    tags: list[TagShare] = Field(examples=[[{"tag": "handwriting", "inside": 0.9, "outside": 0.1}]])
    tasks: list[str] = Field(examples=[["kmnist", "mnist"]])


class Clusters(Answer):
    """All tasks of a space in clusters, largest first."""

    space: str = Field(examples=["deac4466713c82ef"])
    distance: str = Field(examples=["task2vec"])
    method: str = Field(examples=["agglomerative"])
    silhouette: float | None = Field(examples=[0.29])
    cut_height: float | None = Field(examples=[0.41])
    num_landmarks: int = Field(examples=[0])
    notes: list[str] = Field(examples=[[]])
    tried: list[Silhouette]
    clusters: list[Cluster]
    noise: list[str] = Field(examples=[[]])
