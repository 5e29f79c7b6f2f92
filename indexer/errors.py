"""Errors of the indexer.

    IndexerError
    ├── DataError                (ValueError)   a dataset cannot be read or makes no task
    │   ├── DataSpecError                       the data spec itself is not understood
    │   ├── TooFewSamplesError                  too few classes, or too few samples of one
    │   └── UnreadableFilesError                more than a tenth of the sampled files cannot be decoded
    ├── WeightsError             (ValueError)   a weights file does not fit its architecture
    ├── NetworkError             (ValueError)   a network fails on the data
    ├── UnsupportedLayerError    (ValueError)   a layer with parameters has no Fisher rule
    ├── SettingsError            (ValueError)   a setting is out of its range
    ├── EngineError              (RuntimeError) a process or machine that computed was lost, or cannot be had
    ├── MissingLibraryError      (ImportError)  a library of an extra is not installed
    └── UnknownNameError         (LookupError)  no probe, architecture or estimator of that name

Messages are one sentence or two: what, where, what was expected, what to do.
"""

from collections.abc import Iterable

MAX_MESSAGE = 1000
"""Characters of a message. Foreign files decide what some of them quote, and have cells of megabytes."""

SUPPORTED_KINDS = (
    "supported are a folder of class folders, a .csv, .parquet or .jsonl manifest, an .npz of images and "
    "labels, a .zip, .tar or .tar.gz of folders, tars such as shards-{000..009}.tar, hf-data:NAME and "
    "sklearn:digits"
)


def one_line(text: str) -> str:
    """The text as terminals can show it: on one line, control characters spelled out, cut if it is long."""
    line = " ".join(text.splitlines())
    safe = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in line)
    return safe if len(safe) <= MAX_MESSAGE else f"{safe[: MAX_MESSAGE - 305]} ... {safe[-300:]}"


class IndexerError(Exception):
    """Base of everything that a caller of the indexer can cause; its message is one line that prints safely."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class DataError(IndexerError, ValueError):
    """A dataset cannot be read, or what was read makes no task."""

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(f"{where}: {problem}")
        self.where = where
        self.problem = problem

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        """Rebuild from the two attributes, so that the error survives a process boundary."""
        return type(self), (self.where, self.problem)


class DataSpecError(DataError):
    """A data spec that names nothing this package can open."""


class TooFewSamplesError(DataError):
    """Too few classes or labels, too few samples of one, or too few for a regression."""


class UnreadableFilesError(DataError):
    """More than a tenth of the sampled files cannot be decoded."""


class WeightsError(IndexerError, ValueError):
    """A weights file that cannot be read or does not fit its architecture."""


class NetworkError(IndexerError, ValueError):
    """A network that stops with an error on the data, or does not fit into the memory."""


class UnsupportedLayerError(IndexerError, ValueError):
    """A layer holds parameters but has no rule for its squared gradients."""


class SettingsError(IndexerError, ValueError):
    """A setting out of its range."""


class EngineError(IndexerError, RuntimeError):
    """What computes was lost, could not be started, or met an error of a library."""


class MissingLibraryError(IndexerError, ImportError):
    """A library that only some of this package needs is not installed."""

    def __init__(self, what: str, library: str, extra: str) -> None:
        self.what = what
        self.library = library
        self.extra = extra
        super().__init__(f"{what} needs {library}; install it with `pip install 'task2vec-registry[{extra}]'`")

    def __reduce__(self) -> tuple[type, tuple[str, str, str]]:
        """Rebuild from the attributes, so that the error survives a process boundary."""
        return type(self), (self.what, self.library, self.extra)


class UnknownNameError(IndexerError, LookupError):
    """A name that is in no catalogue; the message offers the close ones."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        self.kind = kind
        self.name = name
        self.known = sorted(known)
        begun = [one for one in self.known if name and one.lower().startswith(name.lower())]
        import difflib  # here, not at the top: few calls fail

        alike = difflib.get_close_matches(name, self.known, n=3)
        close = list(dict.fromkeys([*begun, *alike]))[:3]
        hint = f"did you mean {' or '.join(close)}?" if close else f"known are {', '.join(self.known[:8])}"
        super().__init__(f"no {kind} is named {name!r}; {hint}")

    def __reduce__(self) -> tuple[type, tuple[str, str, list[str]]]:
        """Rebuild from the attributes, so that the error survives a process boundary."""
        return type(self), (self.kind, self.name, self.known)
