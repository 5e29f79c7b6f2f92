"""Files that appear whole or not at all, so that neither a kill nor another reader ever meets half of one."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from stat import S_ISDIR, S_ISGID, S_ISREG
from typing import IO, Literal, get_args

from registry.errors import StorageError

Durability = Literal["full", "normal"]
DURABILITIES: tuple[Durability, ...] = get_args(Durability)


@contextmanager
def replacing(path: Path, *, durable: bool = False) -> Iterator[IO[bytes]]:
    """Open a new file that takes the place of ``path`` once the block has written it.

    It is written beside ``path``, under a name that ends in ``.tmp``, and removed if the block raises; a kill
    leaves it there.

    Args:
        path: File that is made or replaced; its folder must be there. Of a link, what it leads to.
        durable: Whether to wait until content and name are on disk, for what must survive a power failure.

    Raises:
        OSError: If there is a device, a pipe or a folder at ``path``, which a file must not replace.
    """
    path = path.resolve() if path.is_symlink() else path
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "that is a device, a pipe or a folder, which a file must not replace")
    temporary = path.with_name(f"{path.name}.{os.urandom(4).hex()}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)


def write_atomically(path: Path, content: bytes, *, durable: bool = False) -> None:
    """Write a whole file in place of ``path``; see ``replacing``."""
    with replacing(path, durable=durable) as file:
        file.write(content)


def open_regular(path: Path) -> IO[bytes]:
    """Open a file to read; never waits, as a pipe would let it, nor reads what never ends.

    Raises:
        OSError: If it cannot be opened, or is a device, a pipe or a folder.
    """
    if "\0" in str(path):
        raise OSError(errno.EINVAL, "no file has such a name")
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if S_ISREG(os.fstat(descriptor).st_mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    raise OSError(errno.EINVAL, "that is a device, a pipe or a folder, not a file")


def is_durable(durability: str | None = None) -> bool:
    """Whether writes to a registry wait until they are on disk.

    Args:
        durability: ``full`` or ``normal``; ``$T2V_DURABILITY``, or ``full``, if not given.

    Raises:
        StorageError: If it is anything else.
    """
    chosen = durability or os.environ.get("T2V_DURABILITY") or "full"
    if chosen not in DURABILITIES:
        name = "durability" if durability else "T2V_DURABILITY"
        raise StorageError(f"{name} must be {' or '.join(DURABILITIES)}, got {chosen!r}")
    return chosen == "full"


def sync_file(path: Path) -> None:
    """Wait until a file is on disk; one that is gone meanwhile needs no waiting."""
    with suppress(FileNotFoundError):
        sync_folder(path)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on disk; a file is opened and synced in the same way."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def share(path: Path, like: Path) -> bool:
    """Give a file or folder the permissions of a folder, whatever the umask; whether it had others."""
    try:
        wanted, mode = like.stat().st_mode, path.stat().st_mode
        # With the set-group-ID bit, which chmod may take away, what is made in a folder is of its group.
        wanted = (wanted | mode & S_ISGID) & 0o2777 if S_ISDIR(mode) else wanted & 0o666
        if wanted != mode & 0o2777:
            path.chmod(wanted)
            return True
    except (PermissionError, FileNotFoundError):  # of another user, who has done so; or gone meanwhile
        pass
    return False


def open_shared(path: Path) -> FileIO:
    """Open a file to append; made, if it is not there, for all who may write in its folder."""
    is_new = not path.exists()
    file = FileIO(path, "ab")
    if is_new:
        share(path, path.parent)
    return file
