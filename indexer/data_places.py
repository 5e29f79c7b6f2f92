"""Where data specs lead: to paths that are there or not, or nowhere on this machine. Nothing is opened."""

import glob
from pathlib import Path

from indexer.archives import expand_braces, is_shard_pattern
from indexer.errors import DataError
from indexer.hub_data import HubData, parse_hub_data


def is_there(spec: str) -> bool:
    """Whether data is on this machine, or need not be.

    Args:
        spec: A pattern of shards, or what the library datasets loads.
    """
    try:
        if is_shard_pattern(spec):
            return all(Path(path).exists() for path in expand_braces(spec))
        data = parse_hub_data(spec)
    except DataError:
        return False
    place = str(Path(data.place).expanduser())
    return not data.is_local or Path(place).exists() or bool(glob.glob(place))  # noqa: PTH207 (absolute)


def absolute_spec(spec: str) -> str:
    """A data spec that means the same from every working folder.

    Args:
        spec: A pattern of shards, or what the library datasets loads.

    Raises:
        DataError: If it is not understood.
    """
    if is_shard_pattern(spec):
        return str(Path(spec).absolute())
    data = parse_hub_data(spec)
    if not data.is_local:
        return spec
    place = str(Path(data.place).expanduser().absolute())
    return str(HubData(spec, place, data.options))
