"""Make a registry appear at once, whole.

It is built in a folder inside its own, and its tables are then moved up, ``meta`` last: a folder holds a
registry once it holds that table. Building inside, not beside, leaves nothing in a folder that is not ours and
works where the folder cannot be replaced (a mount point, somebody's working directory).
"""

import shutil
from collections.abc import Callable
from pathlib import Path

from registry.commits import storage_errors
from registry.database import META_FOLDER, STAGING_FOLDER, Database
from registry.errors import StorageError
from registry.locks import HOLDER_FILE, LOCK_FILE, folder_lock


def create_registry(database: Database, make: Callable[[Path], None]) -> None:
    """Create a registry, unless it is there or another process creates it first.

    Args:
        database: Where.
        make: Makes all tables and their first rows in the folder it is given; if it raises, there is no
            registry.

    Raises:
        StorageError: If the place is a file, a folder of something else, or not writable.
    """
    check_place(database)
    if database.exists:
        return
    with storage_errors(f"{database.uri}: a registry cannot be created here"):
        database.path.mkdir(parents=True, exist_ok=True)
    with folder_lock(database.path):
        if not database.exists:
            _build(database.path, make)


def check_place(database: Database) -> None:
    """Fail where a registry neither is nor can be made; for callers who would find out after long work.

    Raises:
        StorageError: If the place is a file or a folder of something else.
    """
    with storage_errors(f"{database.uri}: a registry cannot be created here"):
        if database.path.is_file():
            raise StorageError(f"{database.uri} is a file; a registry needs a folder of its own")
        # In this order: a registry that appears in between is then not taken for something else.
        if database.path.is_dir() and not _is_ours(database.path) and not database.exists:
            raise StorageError(f"{database.uri} is not empty and holds no registry; give a new or empty folder")


def _is_ours(folder: Path) -> bool:
    """Whether a folder is empty but for the lock, or holds what a killed creation left."""
    names = {child.name for child in folder.iterdir()}
    return STAGING_FOLDER in names or names <= {LOCK_FILE, HOLDER_FILE}


def _build(folder: Path, make: Callable[[Path], None]) -> None:
    """Build the registry and move it into place; the caller holds the lock."""
    staging = folder / STAGING_FOLDER
    for leftover in [staging, *folder.glob("*.lance")]:
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        make(staging)
        with storage_errors(f"{folder}: a registry cannot be created here"):
            for table in sorted(staging.glob("*.lance"), key=lambda table: table.name == META_FOLDER):
                table.rename(folder / table.name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
