"""Errors of the registry.

    RegistryError
    ├── InvalidRecordError    (ValueError)    a record's value is out of its range (name, accuracy, ...)
    ├── InvalidQueryError     (ValueError)    k, a filter or a limit that makes no query
    ├── DuplicateError        (ValueError)    the name is taken
    ├── ConflictError         (ValueError)    a file to import and the registry say different things of a name
    ├── BundleError           (ValueError)    a file to import is not what `t2v export` writes, or is damaged
    ├── NotFoundError         (LookupError)   no task, expert, distance or probe of that name
    ├── UntrustedError        (ValueError)    what came from elsewhere would open a path or run code
    ├── IngestError           (ValueError)    the indexer refused the data; carries its sentence
    ├── MissingExtraError     (ImportError)   a library of an extra is not installed
    ├── StorageError          (OSError)       the registry's place cannot be used: a file, read-only, locked
    │   └── NoRegistryError                   there is no registry yet
    └── SchemaVersionError    (ValueError)    written by a newer version of this package

Messages are one sentence or two: what, where, what was expected, what to do.
"""

from collections.abc import Iterable


class RegistryError(Exception):
    """Base of everything that a caller of the registry can cause."""


class InvalidRecordError(RegistryError, ValueError):
    """A value that a record cannot hold."""


class InvalidQueryError(RegistryError, ValueError):
    """A question that cannot be asked."""


class DuplicateError(RegistryError, ValueError):
    """A name that is taken."""


class BundleError(RegistryError, ValueError):
    """A file that is no bundle, or not as a bundle should be."""


class ConflictError(RegistryError, ValueError):
    """Names that stand for other things in a bundle than in the registry; ``conflicts`` has them all."""

    MAX_SHOWN = 100

    def __init__(self, where: str, conflicts: Iterable[str]) -> None:
        self.where = where
        self.conflicts = list(conflicts)
        more = len(self.conflicts) - self.MAX_SHOWN
        shown = "; ".join(self.conflicts[: self.MAX_SHOWN]) + (f"; and {more} more" if more > 0 else "")
        super().__init__(
            f"{where}: nothing was imported, as it differs from the registry: {shown}; say which takes "
            "precedence with on_conflict='keep' or on_conflict='take'"
        )

    def __reduce__(self) -> tuple[type, tuple[str, list[str]]]:
        """Rebuild from the attributes, so that the error survives a process boundary."""
        return type(self), (self.where, self.conflicts)


class UntrustedError(RegistryError, ValueError):
    """Something that came from elsewhere, and names a path or code, was to be loaded before it was trusted."""


class IngestError(RegistryError, ValueError):
    """The indexer refused a dataset, a probe or an expert."""


class MissingExtraError(RegistryError, ImportError):
    """A library that only some of this package needs is not installed."""

    def __init__(self, what: str, library: str, extra: str) -> None:
        self.what = what
        self.library = library
        self.extra = extra
        super().__init__(f"{what} needs {library}; install it with `pip install 'task2vec-registry[{extra}]'`")

    def __reduce__(self) -> tuple[type, tuple[str, str, str]]:
        """Rebuild from the attributes, so that the error survives a process boundary."""
        return type(self), (self.what, self.library, self.extra)


class StorageError(RegistryError, OSError):
    """The place of the registry cannot be read or written."""


class NoRegistryError(StorageError):
    """There is no registry at the place."""


class SchemaVersionError(RegistryError, ValueError):
    """The registry was written by a newer version of this package."""

    def __init__(self, where: str, found: int, supported: int) -> None:
        super().__init__(
            f"{where}: schema version {found} is newer than {supported}, the newest that this version "
            "understands; upgrade task2vec-registry"
        )
        self.where = where
        self.found = found
        self.supported = supported

    def __reduce__(self) -> tuple[type, tuple[str, int, int]]:
        """Rebuild from the attributes, so that the error survives a process boundary."""
        return type(self), (self.where, self.found, self.supported)


COMMANDS = {
    "task": ("t2v task list", "t2v task add NAME DATA"),
    "expert": ("t2v expert list", "t2v expert add LOADER"),
    "distance": ("t2v distances", ""),
    "network": ("t2v probes", ""),
}
"""What lists all of a kind, and what adds one."""


class NotFoundError(RegistryError, LookupError):
    """A name that is not there; the message offers the close ones, which ``close`` lists."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        self.kind = kind
        self.name = name
        self.known = sorted(known)
        begun = [one for one in self.known if name and one.lower().startswith(name.lower())]
        import difflib  # here, not at the top: few commands fail

        alike = difflib.get_close_matches(name, self.known, n=3)
        self.close = close = list(dict.fromkeys([*begun, *alike]))[:3]
        listing, adding = COMMANDS.get(kind, ("", ""))
        if name.isdecimal() and (numbers := sorted(int(one) for one in self.known if one.isdecimal())):
            self.close, hint = (
                [],
                f"they go from {numbers[0]} to {numbers[-1]}",
            )  # no number is a misspelled one
        elif close:
            hint = f"did you mean {' or '.join(close)}?"
        elif self.known:
            more = (f", ...; `{listing}` lists all" if listing else ", ...") if len(self.known) > 8 else ""
            hint = f"known are {', '.join(self.known[:8])}{more}"
        else:
            hint = f"there is no {kind} yet" + (f"; add one with `{adding}`" if adding else "")
        super().__init__(f"no {kind} is named {name!r}; {hint}")

    def __reduce__(self) -> tuple[type, tuple[str, str, list[str]]]:
        """Rebuild from the attributes, so that the error survives a process boundary."""
        return type(self), (self.kind, self.name, self.known)
