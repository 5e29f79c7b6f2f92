"""Data specs: from the name of a dataset to a listing of its samples.

A data spec is one of

    ./folder                     class folders of images, or of .txt, in any layout of docs/data.md
    ./manifest.csv               columns path,label or path,target, of texts text in place of path, and
                                 optionally split; the same as .parquet, .jsonl and so on
    ./arrays.npz                 images [N, H, W] or [N, H, W, C] and labels; also .npy, .mat, .h5 or idx
    ./images.tar, .tar.gz, .zip  the same folders in an archive, of which nothing is extracted
    ./shards-{000..009}.tar      the same in several, or shards of webdataset
    hf-data:NAME                 what the library datasets loads: a folder, Parquet files, a data set of the hub
    sklearn:digits               1,797 handwritten digits that ship inside scikit-learn

Samples are images or texts. What each may hold is said where it is opened: ``indexer.data.folders``,
``indexer.data.manifests``, ``indexer.data.arrays``, ``indexer.data.tars`` and ``indexer.data.hugging_face``.
"""

import glob
import re
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from indexer.data.archives import COMPRESSED, open_compressed_tar, open_zip
from indexer.data.arrays import open_array_file, open_digits
from indexer.data.folders import open_folder
from indexer.data.hugging_face import PREFIX, HubData, open_hub_data, parse_hub_data
from indexer.data.listings import Listing, system_errors
from indexer.data.manifests import open_manifest
from indexer.data.tars import expand_braces, is_shard_pattern, open_shards, open_tar
from indexer.errors import SUPPORTED_KINDS, DataError, DataSpecError
from indexer.layouts.names import UNREAD
from indexer.records import PythonData, Reading
from indexer.tables.array_files import ARRAY_FILES, IDX
from indexer.tables.delimited import suffix_of
from indexer.tables.files import TABLE_FILES, TEXT_FILES

Opener = Callable[[str, Reading], Listing]

FILE_OPENERS: dict[str, Opener] = {
    **dict.fromkeys(TABLE_FILES, open_manifest),
    **dict.fromkeys(ARRAY_FILES, open_array_file),
    ".tar": open_tar,
    ".zip": open_zip,
}
OPENERS_OF_FOLDERS = (open_folder, open_tar, open_shards, open_compressed_tar, open_zip)


def open_dataset(spec: str, reading: Reading | None = None, **said: Any) -> Listing:
    """List the samples of a dataset without decoding any.

    Args:
        spec: A data spec, see the top of this file.
        reading: What the spec leaves open; of names of splits, case does not count.
        **said: The same, by field of ``Reading``.

    Returns:
        The listing, with at least one sample.

    Raises:
        DataSpecError: If the spec names nothing of a supported kind.
        DataError: If the data is there but is not laid out as its kind asks, or has no such split.
    """
    with system_errors(spec):
        reading = reading or Reading(**said)
        if inner := _only_file(spec):
            return replace(open_dataset(inner, reading), spec=spec)
        opener = _opener(spec)
        if reading.class_level is not None and opener not in OPENERS_OF_FOLDERS:
            raise DataError(spec, "has no class folders, so class_level would change nothing; leave it out")
        return opener(spec, reading)


def _only_file(spec: str) -> str | None:
    """The archive or file of arrays that is all that a folder holds; a table stays in its folder."""
    if isinstance(spec, PythonData) or not Path(spec).is_dir():
        return None
    inside = list(islice(Path(spec).iterdir(), 2))
    names = (*ARRAY_FILES, *COMPRESSED, ".tar", ".zip")
    is_one = len(inside) == 1 and inside[0].is_file() and inside[0].name.lower().endswith(names)
    return str(inside[0]) if is_one else None


def _opener(spec: str) -> Opener:
    if isinstance(spec, PythonData):
        return spec.opener
    if spec == "sklearn:digits":
        return open_digits
    if spec.startswith(PREFIX):
        return open_hub_data
    if spec.startswith("hf:"):
        named = spec.removeprefix("hf:")
        raise DataSpecError(
            spec, f"names a network, not data; what the library datasets loads is {PREFIX}{named}"
        )
    if not spec or re.match(r"[A-Za-z]\w+:", spec):  # one letter and a colon is a drive
        raise DataSpecError(spec or "the empty data spec", f"is no supported kind of data; {SUPPORTED_KINDS}")
    path = Path(spec)
    if path.is_dir():
        return open_folder
    if not path.exists() and is_shard_pattern(spec):
        return open_shards
    if not path.exists():
        raise DataSpecError(spec, f"no such file or folder; {SUPPORTED_KINDS}")
    if not path.is_file():  # reading a pipe would wait for somebody to write
        raise DataSpecError(spec, f"is neither a file nor a folder; {SUPPORTED_KINDS}")
    if path.name.lower().endswith(tuple(COMPRESSED)):
        return open_compressed_tar
    if IDX.search(path.name):
        return open_array_file
    suffix = suffix_of(path.name) if suffix_of(path.name) in TEXT_FILES else path.suffix.lower()
    if suffix in FILE_OPENERS:
        return FILE_OPENERS[suffix]
    why = f"is {UNREAD[suffix]}" if suffix in UNREAD else f"is no supported kind of data; {SUPPORTED_KINDS}"
    raise DataSpecError(spec, why)


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
