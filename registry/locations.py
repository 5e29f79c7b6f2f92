"""From what a user gives as ``--registry`` to the place that it names."""

from pathlib import Path

from registry.places import LocalPlace, Place


def place_of(uri: str | Path) -> Place:
    """The place that a URI names: a folder, or an object store such as ``s3://bucket/prefix``.

    Raises:
        StorageError: If it is a URL of another kind, or what reaches object stores is not installed.
    """
    if "://" in str(uri):
        from registry.object_places import ObjectPlace  # an extra

        return ObjectPlace(str(uri))
    return LocalPlace(uri)
