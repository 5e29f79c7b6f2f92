"""Results that the world has published of real experts, as they ship with this package, and their aliases.

Three Parquet files beside this one, made by ``scripts/make/make_published.py``; ``CARD.md`` says
where each table comes from and under which licence. Reading takes some hundredths of a second, and loads
pyarrow and numpy only. Names are those of the field. Tasks have no data: they are named ``TABLE.NAME``, so
that none is taken for a task of a user's own.

Axes: N results.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

FOLDER = Path(__file__).parent
RESULTS_FILE = "published_results.parquet"
EXPERTS_FILE = "published_experts.parquet"
ALIASES_FILE = "published_aliases.parquet"


@dataclass(frozen=True)
class PublishedExpert:
    """A pretrained network or text encoder that was measured somewhere, or that a library offers.

    Attributes:
        num_params: Parameters: of networks of timm and torchvision with their head, of Hugging Face as model
            cards say, with the part for texts; ``None`` if not known.
        imagenet_accuracy: Top-1 on ImageNet's validation images, 0 to 1, as timm measured it; ``None`` if not.
    """

    name: str  # as the field has it; never one that ``PublishedAliases`` says is another's
    content: Literal["images", "texts"]
    loader: str = ""  # what ``indexer.networks.load.load_network`` takes; empty if nothing here loads it
    num_params: int | None = None
    flops: int | None = None  # multiply-adds of one image at ``input_size``; ``None`` if not known
    input_size: int | None = None  # side of the input in pixels; ``None`` if not known
    width: int | None = None  # length of its features; ``None`` if not known
    family: str = ""  # of its architecture, see ``registry.recommend.attributes``; empty if not known
    training: str = ""  # how it was first trained, see there
    source: str = ""  # dataset of that, see there
    source_size: int | None = None  # images of that dataset, or ``None``
    fine_tuned_on: str = ""  # dataset that it was trained on last, if that is another
    license: str = ""  # of its weights, SPDX or what its library calls it, in lower case; empty if not known
    imagenet_accuracy: float | None = None
    open_weights: bool = True  # whether anybody may have the weights: of APIs nobody has


@dataclass(frozen=True)
class PublishedResult:
    """An accuracy as it was published.

    Attributes:
        expert: As the publication names it; ``canonical_name`` makes one of several names of the same weights.
    """

    task: str  # ``TABLE.NAME``; it has no data
    expert: str
    metric: str
    protocol: str  # how, such as ``linear_probe_16shot``, ``fine_tuned``, ``zero_shot``
    accuracy: float
    source: str  # the publication and its state
    license: str  # SPDX identifier of the table that it was taken from
    content: Literal["images", "texts"]


@dataclass(frozen=True, eq=False)
class Coded:
    """A column of texts with few values: ``values[codes[n]]`` is that of row n."""

    values: tuple[str, ...]  # each once, sorted
    codes: np.ndarray  # ``[N]`` int32

    def __getitem__(self, row: int) -> str:
        """The text of a row."""
        return self.values[int(self.codes[row])]


@dataclass(frozen=True, eq=False)
class PublishedResults:
    """All published results as columns, in order of task, expert and protocol; see ``PublishedResult``."""

    task: Coded
    expert: Coded
    metric: Coded
    protocol: Coded
    source: Coded
    license: Coded
    content: Coded
    accuracy: np.ndarray  # ``[N]`` float64

    def __len__(self) -> int:
        """N."""
        return len(self.accuracy)

    def __iter__(self) -> Iterator[PublishedResult]:
        """The rows; columns are quicker where there are thousands."""
        texts = {
            name: np.array(column.values, dtype=object)[column.codes]
            for name, column in vars(self).items()
            if isinstance(column, Coded)
        }
        for row, accuracy in enumerate(self.accuracy.tolist()):
            yield PublishedResult(**{name: column[row] for name, column in texts.items()}, accuracy=accuracy)


@cache
def published_results(folder: Path = FOLDER) -> PublishedResults:
    """The results, read once per process."""
    table = _read(folder / RESULTS_FILE)
    columns: dict[str, Any] = {
        field.name: _coded(table[field.name]) for field in fields(PublishedResults) if field.name != "accuracy"
    }
    accuracy: np.ndarray = np.from_dlpack(table["accuracy"].combine_chunks())  # to_numpy would load pandas
    return PublishedResults(accuracy=np.divide(accuracy, 10_000), **columns)


@cache
def published_experts(folder: Path = FOLDER) -> Mapping[str, PublishedExpert]:
    """The experts by name, read once per process."""
    table = _read(folder / EXPERTS_FILE)
    columns = [table[field.name].to_pylist() for field in fields(PublishedExpert)]
    return {values[0]: PublishedExpert(*values) for values in zip(*columns, strict=True)}


@cache
def published_aliases(folder: Path = FOLDER) -> Mapping[str, str]:
    """Names of the same weights: from each name that is not the canonical one to that."""
    table = _read(folder / ALIASES_FILE)
    return dict(zip(table["name"].to_pylist(), table["canonical"].to_pylist(), strict=True))


def canonical_name(name: str, aliases: Mapping[str, str] | None = None) -> str:
    """The one name of weights that may have several: of torchvision, else of timm, else of Hugging Face.

    Prefixes go first, where they say no more than the name does: ``timm:NAME`` and ``timm/NAME``, timm's place
    on the hub, are NAME if that says which weights, and ``hf:ORG/NAME`` is ORG/NAME.
    """
    aliases = published_aliases() if aliases is None else aliases
    for prefix in ("timm:", "timm/", "hf:timm/", "hf:"):
        rest = name.removeprefix(prefix)
        if rest != name and (prefix == "hf:" or "." in rest) and "@" not in rest:
            name = rest
            break
    return aliases.get(name, name)


def _read(path: Path) -> Any:
    import pyarrow.parquet as pq

    return pq.ParquetFile(path).read(use_threads=False)  # read_table would load what reads folders of files


def _coded(column: Any) -> Coded:
    """A dictionary column; its values are sorted in the file."""
    import pyarrow as pa

    chunk = column.combine_chunks()
    if not pa.types.is_dictionary(chunk.type):
        chunk = chunk.dictionary_encode()
    values = chunk.dictionary.to_pylist()
    order = sorted(range(len(values)), key=values.__getitem__)
    rank = np.empty(len(values), dtype=np.int32)
    rank[order] = np.arange(len(values), dtype=np.int32)
    return Coded(tuple(values[number] for number in order), rank[np.from_dlpack(chunk.indices)])
