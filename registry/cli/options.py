"""What the commands share: options and kinds of values."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, ParamSpec, TypeVar

import click

from registry.cli.completion import distance_names
from registry.pictures.palette import THEMES
from registry.wording import parse_size

if TYPE_CHECKING:
    pass

Parameters = ParamSpec("Parameters")
Answer = TypeVar("Answer")
MOST_SECONDS = 1e13  # some 300,000 years; what is longer is no time that Python knows
Function = TypeVar("Function", bound=Callable[..., Any])


class Size(click.ParamType[float]):
    """A positive number that may end in k, M, G (or B) or T, such as ``30M`` or ``1.5k``."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number."""
        number = parse_size(str(value))
        if number is None:
            self.fail(f"{value!r} is no size; write a positive number such as 30M, 2G or 1500", param, ctx)
        return number


class Range(click.ParamType[tuple[float, float]]):
    """Two numbers with a comma between them, such as ``0,65535``."""

    name = "range"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, float]:
        """The two numbers; whether they rise is checked where they are used."""
        if isinstance(value, tuple):
            return value
        try:
            low, high = map(float, value.split(","))
        except ValueError:
            self.fail(f"{value!r} is no range; write two numbers with a comma, such as 0,65535", param, ctx)
        return low, high


class Duration(click.ParamType[float]):
    """A positive number of seconds, which may end in s, m, h or d, such as ``90s`` or ``30d``."""

    name = "duration"
    factors: ClassVar = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

    def __init__(self, *, zero: bool = False) -> None:
        self._zero = zero

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number of seconds."""
        match = re.fullmatch(r"([0-9]+(?:\.[0-9]*)?)([smhd]?)", str(value).strip(), re.IGNORECASE)
        seconds = float(match[1]) * self.factors[match[2].lower()] if match else math.nan
        if not (0 < seconds < MOST_SECONDS or (self._zero and seconds == 0)):
            self.fail(f"{value!r} is no duration; write a positive number such as 90s, 5m or 1h", param, ctx)
        return seconds


class Measured(click.ParamType[tuple[str, float]]):
    """An expert and its accuracy, such as ``resnet18.IMAGENET1K_V1=0.83``."""

    name = "measured"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, float]:
        """Both; whether there is such an expert and the range are checked where they are used."""
        if isinstance(value, tuple):
            return value
        expert, _, accuracy = value.rpartition("=")
        try:
            number = float(accuracy)
        except ValueError:
            number = math.nan
        if not expert or math.isnan(number):
            self.fail(
                f"{value!r} is no accuracy of an expert; write EXPERT=ACCURACY, such as a.b=0.83", param, ctx
            )
        return expert, number


class CommaList(click.ParamType[tuple[str, ...]]):
    """Words between commas."""

    name = "words"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """The words, without spaces around them."""
        if isinstance(value, tuple):
            return value
        words = tuple(word.strip() for word in value.split(",") if word.strip())
        if not words:
            self.fail(
                f"{value!r} names nothing; write words between commas, such as mit,apache-2.0", param, ctx
            )
        return words


def together(*options: Callable[[Function], Function]) -> Callable[[Function], Function]:
    """One decorator for several options, which help lists in this order."""

    def decorate(command: Function) -> Function:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
distance_option = click.option(
    "--distance",
    default="task2vec",
    show_default=True,
    metavar="NAME",
    shell_complete=distance_names,
    help="See `t2v distances`.",
)
probe_option = click.option(
    "--probe",
    metavar="LOADER",
    help="Compare in the space of this probe, or of this id. [default: the built-in one]",
)
thumbnails_option = click.option(
    "--thumbnails/--no-thumbnails",
    default=True,
    help="Whether a few samples of images are kept too, as one small picture.  [default: thumbnails]",
)
yes_option = click.option("--yes", is_flag=True, help="Do not ask first.")
purge_option = click.option("--purge", is_flag=True, help="Delete it for good.")
device_option = click.option("--device", metavar="D", help="auto, cpu, cuda or cuda:N. [default: auto]")
# What the database can hold and every random generator takes.
seed_option = click.option("--seed", type=click.IntRange(0, 2**32 - 1), metavar="N", help="[default: 0]")
memory_budget_option = click.option(
    "--memory-budget",
    type=Size(),
    metavar="SIZE",
    help="Bytes that a pass may take, such as 500M. [default: 1024 MiB]",
)
theme_option = click.option(
    "--theme",
    type=click.Choice(tuple(THEMES)),
    help="Theme of the picture. [default: light; of .html what the reader prefers]",
)


def picture(name: str, *, help: str) -> Callable[[Function], Function]:
    """An option that names the file of a picture."""
    kind = click.Path(dir_okay=False, writable=True, path_type=Path)
    return click.option(name, type=kind, metavar="FILE", help=help)


identity_options = together(
    click.option(
        "--as-new-version",
        is_flag=True,
        help="Register data that is not what was registered as the next version of the task.",
    ),
    click.option(
        "--anyway",
        is_flag=True,
        help="Go on where data or weights are not what was registered; results are marked as of others.",
    ),
)
_how_many = together(
    click.option("--max-samples", type=int, metavar="N", help="Most samples used. [default: 2000]"),
    click.option(
        "--tolerance",
        type=float,
        metavar="X",
        help="Stop once the relative error is below this, such as 0.1. [default: use all samples]",
    ),
)
_columns = together(
    click.option(
        "--image-col", metavar="C", help="Column of a table, or array, of images. [default: by its name]"
    ),
    click.option("--text-col", metavar="C", help="Column of texts. [default: by its name]"),
    click.option(
        "--label-col", metavar="C", help="Column of classes; or A,B,C that hold 0 or 1. [default: by its name]"
    ),
    click.option("--target-col", metavar="C", help="Column of measured numbers, for a regression."),
    click.option("--split-col", metavar="C", help="Column of the split. [default: by its name]"),
    click.option(
        "--image-root",
        metavar="DIR",
        help="Folder of a table's images, relative to it. [default: where it lies]",
    ),
    click.option("--image-suffix", metavar="S", help="What names of images end in, if a table leaves it out."),
    click.option("--delimiter", metavar="D", help="What stands between cells: ; or tab. [default: as it fits]"),
    click.option("--encoding", metavar="E", help="Encoding of a text file. [default: UTF-8, or as it says]"),
)
_how_read = together(
    click.option("--split", metavar="S", help="Split of the dataset. [default: train, if there are splits]"),
    click.option(
        "--class-level",
        type=int,
        metavar="N",
        help="Folder that names the class: 1 is the topmost, -1 the one the image lies in. [default: no doubt]",
    ),
    click.option(
        "--skip-bad",
        is_flag=True,
        default=None,
        help="Leave out class folders without samples and rows without a file; of add-many, bad rows.",
    ),
    _columns,
    click.option(
        "--channels",
        metavar="RULE",
        help="How images become RGB: auto, mean, tile, or three channels such as 3,2,1. [default: auto]",
    ),
    click.option(
        "--value-range",
        type=Range(),
        metavar="LOW,HIGH",
        help="Black and white of images of more than 8 bits. [default: the range of their type]",
    ),
    memory_budget_option,
    click.option("--batch-size", type=int, metavar="N", help="Samples per pass. [default: at most 64]"),
    device_option,
)
data_options = together(_how_many, seed_option, _how_read)
reading_options = together(_how_many, _how_read)
embedding_options = together(
    click.option(
        "--probe",
        metavar="LOADER",
        help="Embed with this network, see `t2v probes`. [default: the built-in one]",
    ),
    click.option("--estimator", metavar="NAME", help="See `t2v estimators`. [default: signed]"),
    click.option("--norm-weights", is_flag=True, help="Embed the weights of normalisation layers too."),
    data_options,
)
engine_options = together(
    click.option(
        "--engine",
        metavar="NAME",
        help="serial; processes of this machine; or ray, a cluster. [default: serial]",
    ),
    click.option(
        "--jobs",
        type=click.IntRange(min=1),
        metavar="N",
        help="Embeddings at once. [default: one a core, or what the cluster can take]",
    ),
    click.option(
        "--threads",
        type=click.IntRange(min=1),
        metavar="N",
        help="Threads of each; another number changes rounding. [default: 1]",
    ),
    click.option("--address", metavar="A", help="Ray cluster, such as auto. [default: one on this machine]"),
    click.option("--gpus-per-task", type=float, metavar="X", help="GPUs of each under Ray, such as 0.25."),
    click.option(
        "--memory-per-task", type=Size(), metavar="SIZE", help="Bytes that Ray sets aside for each, such as 2G."
    ),
    click.option(
        "--retries",
        type=click.IntRange(min=0),
        metavar="N",
        help="How often to repeat work whose process or machine was lost. [default: 1]",
    ),
)
shard_options = together(
    click.option(
        "--shards",
        type=click.IntRange(min=1),
        metavar="N",
        help="Split a huge dataset into N parts, which an engine computes.",
    ),
    engine_options,
)


def _names_of(options: Callable[[Callable[..., None]], Callable[..., None]]) -> frozenset[str]:
    command = click.command()(options(lambda: None))
    return frozenset(param.name for param in command.params if param.name)


GROUPS = {
    "Which samples, and how they are read": _names_of(data_options),
    "How the work is shared out": _names_of(engine_options),
}
"""Headings of help for options that many commands have, and their names; others come first."""


class GroupedCommand(click.Command):
    """A command whose help lists the options that many commands have under headings of their own."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write all options."""
        rows: dict[str, list[tuple[str, str]]] = {"Options": [], **{heading: [] for heading in GROUPS}}
        for param in self.get_params(ctx):
            heading = next((heading for heading, names in GROUPS.items() if param.name in names), "Options")
            if isinstance(param, click.Option) and (record := param.get_help_record(ctx)):
                rows[heading].append(record)
        for heading, records in rows.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)
