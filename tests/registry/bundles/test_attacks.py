"""Bundles that somebody damaged or forged: each is refused in one sentence, and nothing is written."""

import io
import pickle
import random
import stat
import zipfile
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import make_embedding, make_expert, make_result, make_task, make_true_space
from exportable import SPACE0, SPACE1
from forgery import Forgery

from registry import TaskRegistry
from registry.bundles import format as bundle_format
from registry.bundles import parquet_check, reader
from registry.bundles.contents import read_contents
from registry.errors import BundleError, RegistryError, SchemaVersionError
from registry.storage import schema
from registry.storage.store import Store

SETTINGS = '{"max_samples": 2000, "seed": 0}'
EMBEDDINGS = f"embeddings__{SPACE0}"
MEMBERS = ["spaces", "tasks", "experts", "results", "audit", EMBEDDINGS]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """Two tasks, one of two versions, with an expert and a result."""
    folder = tmp_path_factory.mktemp("source")
    store = Store.create(folder / "registry")
    store.add_space(make_true_space())
    store.add_experts([make_expert(), make_expert("vit.tiny")])
    store.add_results([make_result(), make_result("birds", "vit.tiny", 0.5)])
    keys = [("birds", 1), ("flowers", 1), ("flowers", 2)]
    store.add_tasks([(make_task(*key, settings=SETTINGS), make_embedding(*key)) for key in keys], SPACE0)
    TaskRegistry(folder / "registry").export(folder / "good.t2v")
    return folder / "good.t2v"


@pytest.fixture
def forgery(bundle):
    return Forgery.of(bundle)


def refuse(path, tmp_path, message, error=BundleError):
    """A file is refused, and no registry was made for it."""
    target = tmp_path / "target"
    with pytest.raises(error) as refused:
        TaskRegistry(target).import_bundle(path)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not target.exists()


def complaint(path):
    """What is said about a file, if anything."""
    try:
        with reader.open_bundle(path) as opened:
            assert len(read_contents(opened).tasks) == 3
    except RegistryError as error:
        return str(error)
    return ""


def test_a_forgery_that_changes_nothing_is_taken(forgery, tmp_path):
    """Else the cases below would prove nothing."""
    for name in MEMBERS:
        forgery.change(name, lambda rows: rows)
    path = forgery.write(tmp_path / "same.t2v")
    assert TaskRegistry(tmp_path / "target").import_bundle(path).tasks == 3
    assert Store(tmp_path / "target").verify() == []


def with_rows(name, change):
    """Forges a table of other rows, of which the manifest tells."""

    def forge(forgery):
        forgery.change(name, change)
        forgery.manifest["members"][f"{name}.parquet"]["rows"] = len(forgery.table(name))

    return forge


def many(rows):
    names = pa.array([f"birds{number:07}" for number in range(5000)])
    return rows.take(pa.array([0] * 5000)).set_column(0, rows.schema.field("name"), names)


def further(name, content=b"", compression=zipfile.ZIP_STORED):
    entry = zipfile.ZipInfo(name)
    entry.compress_type = compression
    return lambda forgery: forgery.entries.append((entry, content))


def compressed_manifest(forgery):
    vars(forgery).update(manifest={}, described=False)
    further("manifest.json", b" " * 10_000_000, zipfile.ZIP_DEFLATED)(forgery)


def one_byte_more(forgery):
    forgery.described = False
    forgery.manifest["members"]["tasks.parquet"]["bytes"] += 1


OBJECTS = pa.array([pickle.dumps(1)] * 3, pa.binary())
NO_TEXT = pa.array([b"\xff\xfe"] * 3, pa.binary()).view(pa.string())
FORGERIES = {
    "a member of which the manifest knows nothing": (
        further("embeddings__other.parquet", b"content"),
        "'embeddings__other.parquet' has no place in a bundle",
    ),
    "no manifest": (
        lambda forgery: vars(forgery).update(described=False, manifest={}),
        "there is no manifest.json in it",
    ),
    "links": (lambda forgery: vars(forgery).update(mode=stat.S_IFLNK | 0o777), "is no plain file"),
    "a folder": (further("tasks/"), "'tasks/' is no plain file"),
    # The size of a file bounds that of its members: there are no zip bombs.
    "compressed members": (
        lambda forgery: vars(forgery).update(compression=zipfile.ZIP_DEFLATED),
        "is compressed or encrypted",
    ),
    "a compressed manifest": (compressed_manifest, "is compressed or encrypted"),
    "a size that is not the manifest's": (one_byte_more, "bytes, the manifest says"),
    "a column less": (
        lambda forgery: forgery.change("tasks", lambda rows: rows.drop_columns("tags")),
        "its column tags must be list",
    ),
    "bytes in place of text, as numpy's objects would come": (
        lambda forgery: forgery.change("tasks", lambda rows: rows.set_column(2, "data", OBJECTS)),
        "its column data must be string, got data of binary",
    ),
    "text that is no text": (
        lambda forgery: forgery.change("tasks", lambda rows: rows.set_column(2, rows.field("data"), NO_TEXT)),
        "tasks.parquet is not right",
    ),
    "a space of another width": (
        lambda forgery: forgery.set("spaces", "trivial", [[0.01] * 5]),
        "its column fisher must be fixed_size_list",
    ),
    "a task without embedding": (
        with_rows(EMBEDDINGS, lambda rows: rows.slice(0, 2)),
        "task flowers@2 has no embedding in any space",
    ),
    "an embedding without task": (
        with_rows("tasks", lambda rows: rows.slice(0, 2)),
        "flowers@2 is no task of this file",
    ),
    "row groups of too many rows": (with_rows("tasks", many), "row groups may have 4096 rows"),
    # A page of few bytes can stand for any number of long texts.
    "a dictionary": (
        lambda forgery: forgery.set("tasks", "data", ["x" * 2**20] * 3, use_dictionary=True),
        "a column has a dictionary or an index",
    ),
}


@pytest.mark.parametrize(("forge", "message"), FORGERIES.values(), ids=FORGERIES)
def test_forgeries_are_refused(forgery, tmp_path, forge, message):
    forge(forgery)
    refuse(forgery.write(tmp_path / "forged.t2v"), tmp_path, message)


ODD_NAMES = [
    "../tasks.parquet",
    "/etc/passwd",
    "..\\tasks.parquet",
    "sub/tasks.parquet",
    "index.faiss",
    "x" * 300,
]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_members_of_other_names_are_refused(forgery, tmp_path, name):
    forgery.members[name] = b"content"
    refuse(forgery.write(tmp_path / "odd.t2v"), tmp_path, "has no place in a bundle")


@pytest.mark.parametrize("name", ["tasks.parquet", "manifest.json"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_members_that_are_there_twice_are_refused(forgery, tmp_path, name):
    forgery.entries.append((zipfile.ZipInfo(name), b"{}"))
    refuse(forgery.write(tmp_path / "twice.t2v"), tmp_path, f"'{name}' is in it twice")


@pytest.mark.parametrize("name", MEMBERS)
def test_members_that_are_missing_are_refused(forgery, tmp_path, name):
    forgery.described = False
    del forgery.members[f"{name}.parquet"]
    refuse(forgery.write(tmp_path / "missing.t2v"), tmp_path, f"{name}.parquet is missing")


@pytest.mark.parametrize("name", MEMBERS)
def test_members_that_neither_manifest_nor_archive_has_are_refused(forgery, tmp_path, name):
    del forgery.members[f"{name}.parquet"]
    message = (
        f"space {SPACE0} must have a row and a member" if name == EMBEDDINGS else f"{name}.parquet is missing"
    )
    refuse(forgery.write(tmp_path / "missing.t2v"), tmp_path, message)


@pytest.mark.parametrize("name", MEMBERS)
def test_a_flipped_bit_is_noticed(bundle, tmp_path, name):
    content = bytearray(bundle.read_bytes())
    member = Forgery.of(bundle).members[f"{name}.parquet"]
    content[content.index(member) + len(member) // 2] ^= 1
    (tmp_path / "flipped.t2v").write_bytes(content)
    refuse(tmp_path / "flipped.t2v", tmp_path, f"{name}.parquet is not what its checksum was made of")


def test_flips_anywhere_change_nothing_or_are_refused(bundle, tmp_path):
    """The times of zip members mean nothing, so a flip there may pass."""
    generator, content = random.Random(0), bundle.read_bytes()
    path = tmp_path / "flipped.t2v"
    for _ in range(60):
        changed = bytearray(content)
        changed[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
        path.write_bytes(changed)
        assert "\n" not in complaint(path)


def test_every_shorter_file_is_refused(bundle, tmp_path):
    content = bundle.read_bytes()
    path = tmp_path / "short.t2v"
    for size in [0, 1, *range(100, len(content), len(content) // 20), len(content) - 1]:
        path.write_bytes(content[:size])
        refuse(path, tmp_path, "is no bundle, or is damaged or cut off")


@pytest.mark.parametrize("where", ["before", "after", "between"])
def test_hidden_bytes_are_refused(bundle, tmp_path, where):
    content = bundle.read_bytes()
    path = tmp_path / "more.t2v"
    if where == "between":
        with zipfile.ZipFile(path, "w") as archive:
            for name, member in Forgery.of(bundle).members.items():
                archive.writestr(name, member)
                archive.fp.write(b"hidden")
                archive.start_dir = archive.fp.tell()
            archive.writestr("manifest.json", zipfile.ZipFile(bundle).read("manifest.json"))
    else:
        path.write_bytes(b"hidden" + content if where == "before" else content + b"hidden")
    refuse(path, tmp_path, "")


def test_a_huge_manifest_is_refused(forgery, tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "MAX_MANIFEST_BYTES", 100)
    refuse(forgery.write(tmp_path / "huge.t2v"), tmp_path, "manifest.json is larger than 100 bytes")


MANIFESTS = {
    "of another format": {"format": "something else"},
    "a version that is a text": {"schema_version": "3"},
    "a version that is true": {"format_version": True},
    "members that are a list": {"members": []},
    "a member that is a text": {"members": {"tasks.parquet": "x"}},
    "rows that are a text": {"members": {"tasks.parquet": {"rows": "1", "bytes": 1, "blake2b": "x"}}},
    "an endless number": {"members": {"tasks.parquet": {"rows": 1e999, "bytes": 1, "blake2b": "x"}}},
}


@pytest.mark.parametrize("change", MANIFESTS.values(), ids=MANIFESTS)
def test_manifests_that_make_no_sense_are_refused(forgery, tmp_path, change):
    forgery.described = False
    forgery.manifest |= change
    refuse(forgery.write(tmp_path / "manifest.t2v"), tmp_path, "manifest.json is not that of a bundle")


@pytest.mark.parametrize("content", [b"", b"[" * 100_000, b"\xff\xfe", b"null", b"{}", pickle.dumps({"a": 1})])
def test_manifests_that_are_none_are_refused(forgery, tmp_path, content):
    forgery.described, forgery.manifest = False, {}
    forgery.entries.append((zipfile.ZipInfo("manifest.json"), content))
    refuse(forgery.write(tmp_path / "manifest.t2v"), tmp_path, "manifest.json is not that of a bundle")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"schema_version": schema.SCHEMA_VERSION + 1}, SchemaVersionError, "upgrade task2vec-registry"),
        ({"format_version": bundle_format.FORMAT_VERSION + 1}, BundleError, "upgrade task2vec-registry"),
        ({"schema_version": 2}, BundleError, "was never written"),
        ({"format_version": 0}, BundleError, "was never written"),
    ],
)
def test_other_versions_are_refused(forgery, tmp_path, change, error, message):
    forgery.manifest |= change
    refuse(forgery.write(tmp_path / "version.t2v"), tmp_path, message, error)


@pytest.mark.parametrize("name", MEMBERS)
def test_rows_that_are_not_those_of_the_manifest_are_refused(forgery, tmp_path, name):
    forgery.manifest["members"][f"{name}.parquet"]["rows"] = 10**12
    refuse(forgery.write(tmp_path / "rows.t2v"), tmp_path, "rows, the manifest says 1000000000000")


@pytest.mark.parametrize("name", MEMBERS)
def test_pickles_are_refused(forgery, tmp_path, name):
    class Harm:
        def __reduce__(self):
            return pytest.fail, ("a pickle was loaded",)

    forgery.members[f"{name}.parquet"] = pickle.dumps(Harm())
    refuse(forgery.write(tmp_path / "pickle.t2v"), tmp_path, "it is no Parquet file")


@pytest.mark.parametrize("name", MEMBERS)
def test_damaged_parquet_with_a_right_checksum_is_told(forgery, tmp_path, name):
    """Whatever the bytes are, there is one sentence or a proper import: never a traceback."""
    generator, whole = random.Random(zlib.crc32(name.encode())), forgery.members[f"{name}.parquet"]
    for _ in range(12):
        content = bytearray(whole)
        content[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
        forgery.members[f"{name}.parquet"] = bytes(content)
        path = forgery.write(tmp_path / "damaged.t2v")
        assert "\n" not in complaint(path)


@pytest.mark.parametrize("width", [1, 3, 5, 1000])
def test_vectors_of_another_width_are_refused(forgery, tmp_path, width):
    values = pa.array([[0.5] * width] * 3, pa.list_(pa.float32(), width))
    column = pa.field("fisher", values.type, nullable=False)
    forgery.change(EMBEDDINGS, lambda rows: rows.set_column(2, column, values))
    refuse(forgery.write(tmp_path / "width.t2v"), tmp_path, "its column fisher must be fixed_size_list")


BAD_VECTORS = {
    "nan": ("fisher", np.nan, "must be one finite vector"),
    "infinity": ("fisher", np.inf, "must be one finite vector"),
    "negative": ("fisher", -1.0, "must be non-negative"),
    "null": ("fisher", None, "a value is missing"),
    "nan in the error": ("standard_error", np.nan, "must be one finite vector"),
    "negative error": ("standard_error", -1.0, "standard_error must not be negative"),
    "beyond squaring": ("fisher", 3e38, "fisher must be at most 1e+15 in size"),
    "infinity in the domain": ("domain", -np.inf, "must be one finite vector"),
    "another number": ("fisher", 0.123, "is not what its checksum was made of"),
}


@pytest.mark.parametrize(("column", "value", "message"), BAD_VECTORS.values(), ids=BAD_VECTORS)
def test_vectors_that_are_no_embedding_are_refused(forgery, tmp_path, column, value, message):
    vectors = forgery.table(EMBEDDINGS)[column].to_pylist()
    vectors[1][0] = value
    forgery.set(EMBEDDINGS, column, vectors)
    refuse(forgery.write(tmp_path / "vector.t2v"), tmp_path, message)


BAD_VALUES = {
    "task name": ("tasks", "name", ["birds", "fl/../owers", "flowers"], "cannot name a task"),
    "task twice": ("tasks", "version", [1, 2, 2], "rows must be in order of their keys, each once"),
    "version 0": ("tasks", "version", [0, 1, 2], "version must be at least 1"),
    "version too large": ("tasks", "version", [1, 1, 2**31], "version must be at most 1000000, got 2147483648"),
    "tag": ("tasks", "tags", [["a b"], [], []], "cannot name a tag"),
    "null tag": ("tasks", "tags", [[None], [], []], "a value is missing"),
    "alias twice": (
        "tasks",
        "aliases",
        [[], ["best"], ["best"]],
        "an alias of task flowers names two versions",
    ),
    "kind": ("tasks", "kind", ["other"] * 3, "kind must be"),
    "removed task": ("tasks", "removed_at", ["2024-01-01"] * 3, "is removed"),
    "settings": ("tasks", "settings", ["{}"] * 3, "max_samples must be a whole number"),
    "settings deep": ("tasks", "settings", ["[" * 100_000] * 3, "tasks.parquet is not right"),
    "no samples": ("tasks", "num_samples", [0, 1, 1], "num_samples must be at least 1, got 0"),
    "task time": ("tasks", "created_at", ["yesterday"] * 3, "created_at must be a time such as"),
    "orphan embedding": (EMBEDDINGS, "task", ["birds", "flowers", "zebra"], "made of"),
    "no checksum": (EMBEDDINGS, "checksum", [0, 0, 0], "has no checksum"),
    "expert name": ("experts", "name", ["", "vit"], "cannot name an expert"),
    "expert twice": ("experts", "name", ["vit", "vit"], "rows must be in order of their keys"),
    "expert size": ("experts", "num_params", [-1, 1], "num_params must be at least 1"),
    "accuracy": ("results", "accuracy", [np.nan, 0.5], "must be from 0 to 1"),
    "result of nobody": ("results", "expert", ["nobody", "vit.tiny"], "nobody, which is neither in it nor"),
    "result on nothing": ("results", "task", ["nothing", "birds"], "nothing, which is neither in it nor"),
    "space name": ("spaces", "space_id", ["../x"], "'../x' cannot name a space"),
    "space of another description": ("spaces", "space_id", [SPACE1], "is not what its description says"),
    "trivial task": ("spaces", "trivial", [[0.0] * 4], "trivial must be positive everywhere"),
    "no trivial task": ("spaces", "trivial", [[]], "trivial must be 1 to"),
    "domain": ("spaces", "domain_dim", [2**40], "domain_dim must be at most 1048576"),
    "description": ("spaces", "description", ["[]"], "description must be a JSON object"),
    "estimator": ("spaces", "description", ['{"estimator": ["x"]}'], "of the description must be texts"),
    "settings of lists": ("tasks", "settings", ['{"max_samples": 9, "seed": []}'] * 3, "must be plain"),
    "tolerance": ("tasks", "settings", ['{"max_samples": 9, "tolerance": "x"}'] * 3, "tolerance must be"),
    "value range": ("tasks", "settings", ['{"max_samples": 9, "value_range": 1}'] * 3, "must be two numbers"),
    "long text": ("tasks", "data", ["x" * 70_000] * 3, "data must be a text of at most 65536 characters"),
}


@pytest.mark.parametrize(("table", "column", "values", "message"), BAD_VALUES.values(), ids=BAD_VALUES)
def test_values_that_no_record_may_have_are_refused(forgery, tmp_path, table, column, values, message):
    forgery.set(table, column, values)
    refuse(forgery.write(tmp_path / "value.t2v"), tmp_path, message)


@pytest.mark.parametrize(("column", "value"), [("at", "now"), ("details", "1"), ("versions", "none")])
def test_lines_of_the_audit_that_are_none_are_refused(forgery, tmp_path, column, value):
    forgery.set("audit", column, [value] * len(forgery.table("audit")))
    refuse(forgery.write(tmp_path / "audit.t2v"), tmp_path, "audit.parquet is not right")


@pytest.mark.parametrize("details", ["{}", '{"versions": 1}', '{"versions": [9223372036854775807]}'])
def test_purges_that_tell_no_version_are_refused(forgery, tmp_path, details):
    """The next version of a task is one that was never purged."""
    lines = len(forgery.table("audit"))
    forgery.set("audit", "action", ["task.purge"] * lines)
    forgery.set("audit", "details", [details] * lines)
    refuse(forgery.write(tmp_path / "purge.t2v"), tmp_path, "must name its versions")


@pytest.mark.parametrize("compression", ["none", "gzip", "snappy", "brotli"])
def test_other_compressions_are_refused(forgery, tmp_path, compression):
    forgery.change("tasks", lambda rows: rows, compression=compression)
    refuse(forgery.write(tmp_path / "gzip.t2v"), tmp_path, "a column is not compressed by zstd")


def test_bombs_are_refused(forgery, tmp_path, monkeypatch):
    """12 MiB of one letter take a few kilobytes in the file."""
    monkeypatch.setattr(bundle_format, "BOMB_FROM_BYTES", 2**20)
    forgery.set("tasks", "data", ["x" * 2**22] * 3)
    path = forgery.write(tmp_path / "bomb.t2v")
    assert path.stat().st_size < 50_000
    refuse(path, tmp_path, "it grows in memory by more than its rows explain")


@pytest.mark.parametrize(
    ("limit", "message"),
    [("MAX_GROUP_BYTES", "100 bytes at most"), ("MAX_TOTAL_BYTES", "take more than 100 bytes in memory")],
)
def test_limits_on_sizes_are_kept(bundle, tmp_path, monkeypatch, limit, message):
    monkeypatch.setattr(reader, limit, 100)
    refuse(bundle, tmp_path, message)


def page_header(content, position=4):
    """Fields of the page header at a position, and where each of them begins."""
    thrift = parquet_check._Thrift(content[position : position + 100])
    return thrift.structure(), position + thrift.position


def test_a_page_that_asks_for_more_memory_than_the_footer_tells_is_refused(forgery, tmp_path):
    """In the first page header of the tasks: the size in memory, a varint, is made larger by one."""
    content = bytearray(forgery.members["tasks.parquet"])
    assert page_header(bytes(content))[0][1] == parquet_check.DATA_PAGE
    assert content[4:6] == b"\x15\x00"  # the kind of the page; its size in memory comes next
    content[7] += 2
    forgery.members["tasks.parquet"] = bytes(content)
    message = "its pages are not those in its footer"
    refuse(forgery.write(tmp_path / "page.t2v"), tmp_path, message)


@pytest.mark.parametrize(
    ("number", "message"), [(0, "it has a page of another kind"), (1, "a size is negative")]
)
def test_other_pages_are_refused(forgery, tmp_path, number, message):
    """The kind of the page becomes that of a dictionary; its size in memory becomes negative."""
    content = bytearray(forgery.members["tasks.parquet"])
    content[5 + 2 * number] = 4 if number == 0 else content[7] | 1
    forgery.members["tasks.parquet"] = bytes(content)
    refuse(forgery.write(tmp_path / "page.t2v"), tmp_path, message)


def test_a_compression_that_nobody_knows_is_refused(forgery, tmp_path):
    """Reading its name from pyarrow 26 ends the process: std::terminate, no exception."""
    content = forgery.members["tasks.parquet"]
    size = int.from_bytes(content[-8:-4], "little")
    footer = content[-8 - size : -8]
    position = footer.index(b"name", footer.index(b"created_at")) + len(b"name")
    assert footer[position : position + 2] == b"\x15\x0c"  # the codec, 6 in zigzag: zstd
    footer = footer[: position + 1] + b"\x3e" + footer[position + 2 :]
    forgery.members["tasks.parquet"] = content[: -8 - size] + footer + content[-8:]
    refuse(forgery.write(tmp_path / "codec.t2v"), tmp_path, "a column is not compressed by zstd")


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x05\x06" + bytes(18), b"PK\x03\x04" + bytes(1000)])
def test_files_that_are_no_bundle_are_refused(tmp_path, content):
    (tmp_path / "file.t2v").write_bytes(content)
    refuse(tmp_path / "file.t2v", tmp_path, "file.t2v")


def test_files_that_cannot_be_read_are_told(tmp_path):
    refuse(tmp_path / "none.t2v", tmp_path, "none.t2v: the file cannot be read: No such file", OSError)
    refuse(tmp_path, tmp_path, "there is no manifest.json in it, so it is no bundle")
    images = tmp_path / "images.zip"
    with zipfile.ZipFile(images, "w") as archive:
        archive.mkdir("cat")
    refuse(images, tmp_path, "so it is no bundle; data is added by `t2v task add`")


def test_a_parquet_file_alone_is_refused(tmp_path):
    sink = io.BytesIO()
    pq.write_table(schema.TASKS.empty_table(), sink)
    (tmp_path / "tasks.parquet").write_bytes(sink.getvalue())
    refuse(tmp_path / "tasks.parquet", tmp_path, "is no bundle")
