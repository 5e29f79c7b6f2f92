"""Which file a row of a table means: as it stands, or the only one whose path ends alike.

Tables often name images by an id, by a name without its folder, or by a path of the machine that wrote them.
"""

import os
import re
import stat
from pathlib import Path, PurePosixPath

from indexer.data.images import IMAGE_SUFFIXES, is_image_name
from indexer.data.listings import read_file
from indexer.errors import DataError

MAX_LISTED = 2_000_000
"""Files that are listed to look for those of rows."""


class RowFiles:
    """The files that the rows of a table name, below the folder of the table or another."""

    def __init__(
        self, spec: str, root: str | None = None, suffix: str | None = None, within: Path | None = None
    ) -> None:
        """Remember where to look; ``DataError`` if there is no such folder."""
        self._spec = spec
        self._folder = Path(spec).parent / Path(root or ".").expanduser()
        self._within = within.resolve() if within else None
        self._suffix = "" if not suffix else suffix if suffix.startswith((".", "_", "-")) else f".{suffix}"
        if root is not None and not (self._folder.is_dir() and self._may_read(self._folder)):
            raise DataError(spec, f"image_root={root!r}: there is no such folder; it is relative to that file")
        self._listed: dict[str, list[str]] | None = None
        self._matched, self._example = 0, ("", "")
        self._moved: dict[tuple[str, ...], str] = {}  # folders of paths in the table, and what they are here

    def _may_read(self, path: Path) -> bool:
        return self._within is None or path.resolve().is_relative_to(self._within)

    @property
    def taken(self) -> tuple[str, ...]:
        """How rows and files were matched, in a sentence, unless all paths are there as they stand."""
        if not self._matched:
            return ()
        first, second = self._example
        said = f"{self._matched} names as the only file that ends alike, such as {first!r} for {second!r}"
        return (said,)

    def read(self, where: Path) -> bytes:
        """Content of a file."""
        return read_file(where)

    def find(self, place: str, named: str) -> tuple[str, Path, int]:
        """Name, path and size of the file that a row names; ``DataError`` if none or several are meant."""
        name = named if named.endswith(self._suffix) else named + self._suffix
        try:
            status = (path := self._folder / name).stat()
            if not self._may_read(path):
                return self._alike(place, named, name)
        except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a null character
            return self._alike(place, named, name)
        except OSError as error:  # such as a name that is too long
            raise DataError(self._spec, f"{place}: file {named!r} cannot be read: {error.strerror}") from error
        if stat.S_ISDIR(status.st_mode) and not is_image_name(name):
            return self._alike(place, named, name, f"{named!r} is not a file")
        if not stat.S_ISREG(status.st_mode):
            raise DataError(self._spec, f"{place}: {named!r} is not a file")
        parts = _parts(name)
        if not Path(name).is_absolute() and not self._is_consistent(parts, "/".join(parts[1:]), len(parts) - 2):
            first, second = self._example
            raise DataError(
                self._spec,
                f"{place}: {named!r} is there as it stands, and {first!r} only as {second!r}: that "
                "row may name a file that is missing; say where images are by image_root=, or leave it out by "
                "skip_bad=True",
            )
        return PurePosixPath(name).as_posix(), path, status.st_size

    def _alike(self, place: str, named: str, name: str, problem: str = "") -> tuple[str, Path, int]:
        """The only file below the folder whose path ends like a name; ``DataError`` if none or several do."""
        parts = _parts(name)
        fitting, same = self._fitting(parts) if len(parts) > 1 else ([], 0)
        if len(fitting) > 1:
            raise DataError(
                self._spec,
                f"{place}: {named!r} could be {fitting[0]} or {fitting[1]}; say which folder by image_root=",
            )
        if not fitting or not self._is_consistent(parts, fitting[0], same):
            where = "beside the manifest" if self._folder == Path(self._spec).parent else f"in {self._folder}"
            problem = problem or f"file {named!r} does not exist {where}"
            raise DataError(
                self._spec,
                f"{place}: {problem}; image_root= and image_suffix= say where images are and how their names "
                "end, skip_bad=True leaves such rows out",
            )
        path = self._folder / fitting[0]
        if not self._may_read(path):
            raise DataError(self._spec, f"{place}: {named!r} is a link that leads out of {self._within}")
        self._matched += 1
        self._example = self._example if self._matched > 1 else (named, fitting[0])
        return fitting[0], path, path.stat().st_size

    def _is_consistent(self, parts: list[str], candidate: str, same: int) -> bool:
        """Whether what stands for the folders of a path is what stands for those of other rows.

        Else the file of the row may be missing, and another of its name be taken for it.
        """
        if len(parts) == 2:
            return True
        before = tuple(parts[: len(parts) - 1 - same])
        here = "/".join(candidate.split("/")[: -1 - same])
        if self._moved.get(before) == here:
            return True
        if any(before[: len(other)] == other[: len(before)] for other in self._moved):
            return False
        self._moved[before] = here
        return True

    def _fitting(self, parts: list[str]) -> tuple[list[str], int]:
        """The files that share the most folders with the end of a path, and how many."""
        best: list[str] = []
        most = 0
        for candidate in self._files().get(_key(parts[-1]), ()):
            folders = candidate.split("/")[:-1]
            same = 0
            for own, other in zip(reversed(parts[:-1]), reversed(folders), strict=False):
                if own.casefold() != other.casefold():
                    break
                same += 1
            exact = candidate.rsplit("/", 1)[-1].startswith(parts[-1])  # or it differs by case
            rank = 2 * same + exact + 1
            best, most = ([candidate], rank) if rank > most else (best + [candidate] * (rank == most), most)
        return best, max(0, most - 1) // 2

    def _files(self) -> dict[str, list[str]]:
        """Images below the folder by name, with and without its ending; ``DataError`` if too many."""
        if self._listed is None:
            self._listed, count = {}, 0
            for folder, folders, names in os.walk(self._folder):
                folders[:] = sorted(inner for inner in folders if not inner.startswith("."))
                count += len(names)
                if count > MAX_LISTED:
                    raise DataError(
                        self._spec,
                        f"{self._folder} holds more than {MAX_LISTED} files to look for images; say where they "
                        "are by image_root=",
                    )
                below = PurePosixPath(Path(folder).relative_to(self._folder).as_posix())
                for name in sorted(filter(is_image_name, names)):
                    for key in {_key(name), _key(_stem(name))}:
                        self._listed.setdefault(key, []).append((below / name).as_posix())
        return self._listed


def _parts(name: str) -> list[str]:
    """Where a path begins, and the names in it, whatever machine wrote it."""
    path = name.replace("\\", "/")
    start = "/" if re.match("/|[A-Za-z]:", path) else "."
    return [start, *(part for part in path.split("/") if part not in ("", "."))]


def _key(name: str) -> str:
    return name.casefold()


def _stem(name: str) -> str:
    suffix = next(suffix for suffix in IMAGE_SUFFIXES if name.lower().endswith(suffix))
    return name[: -len(suffix)]
