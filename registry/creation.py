"""Make a registry appear at once, whole.

It is built in a place inside its own, and its tables are then moved up, ``meta`` last: a place holds a
registry once it holds that table. Building inside, not beside, leaves nothing in a folder that is not ours and
works where the folder cannot be replaced (a mount point, somebody's working directory).
"""

from collections.abc import Callable

from registry.commits import storage_errors
from registry.database import Database


def create_registry(database: Database, make: Callable[[str], None]) -> None:
    """Create a registry, unless it is there or another process creates it first.

    Args:
        database: Where.
        make: Makes all tables and their first rows at the URI it is given; if it raises, there is no registry.

    Raises:
        StorageError: If the place is a file, a folder of something else, or not writable.
    """
    check_place(database)
    if database.exists:
        return
    place = database.place
    with storage_errors(f"{database.uri}: a registry cannot be created here"):
        place.prepare()
    with place.lock():
        if database.exists:
            return
        place.remove_leftovers()
        try:
            make(place.staging_uri)
            with storage_errors(f"{database.uri}: a registry cannot be created here"):
                place.publish()
        except BaseException:
            # Some tables may have been moved already, and would be taken for a registry that lost its meta.
            if not database.exists:
                place.remove_leftovers()
            raise
        finally:
            place.remove_staging()


def check_place(database: Database) -> None:
    """Fail where a registry neither is nor can be made; for callers who would find out after long work.

    Raises:
        StorageError: If the place is a file or a folder of something else.
    """
    with storage_errors(f"{database.uri}: a registry cannot be created here"):
        database.place.check()
