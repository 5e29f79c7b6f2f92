import re
import subprocess
import sys

import obstore
import pytest
from markdown_pages import ROOT
from s3_server import S3Server

from registry.errors import StorageError
from registry.storage.object_store import ObjectPlace


@pytest.fixture
def place(bucket):
    return ObjectPlace(f"{bucket}/team/registry")


def put(place, *paths):
    for path in paths:
        obstore.put(place._store, path, path.encode())


@pytest.mark.parametrize(
    ("uri", "target"),
    [
        ("s3://bucket/team/registry/", "s3://bucket/team/registry"),
        ("s3://bucket", "s3://bucket"),
        ("gs://bucket/registry", "gs://bucket/registry"),
        ("az://container/registry", "az://container/registry"),
    ],
)
def test_place_keeps_the_uri_and_normalises_the_target(uri, target):
    place = ObjectPlace(uri)
    assert (place.uri, place.connect_target, place.staging_uri) == (uri, target, f"{target}/.creating")


@pytest.mark.parametrize(
    "uri", ["ftp://host/registry", "https://host/registry", "s3:///registry", "s3://b/r?x=1"]
)
def test_other_urls_are_refused(uri):
    message = (
        f"{uri}: a registry lies in a local folder or at one of s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, "
        "az://BUCKET/PREFIX"
    )
    with pytest.raises(StorageError, match=f"^{re.escape(message)}$"):
        ObjectPlace(uri)


def test_credentials_in_the_url_are_refused_and_not_repeated():
    message = "s3://...@bucket: a URL must not hold credentials; set them in the environment"
    with pytest.raises(StorageError, match=f"^{re.escape(message)}$"):
        ObjectPlace("s3://key:secret@bucket/registry")


def test_place_holds_no_credentials(place, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    place.check()
    with place.lock():
        content = obstore.get(place._store, "write.lock").bytes()
    assert b"hunter2" not in bytes(content)
    assert "hunter2" not in f"{vars(place)}"


def test_only_a_plain_endpoint_allows_plain_http(monkeypatch):
    for name in ("AWS_ENDPOINT", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    assert "allow_http" not in ObjectPlace("s3://bucket/registry").storage_options
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://store.example")
    assert "allow_http" not in ObjectPlace("s3://bucket/registry").storage_options
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9000")
    assert ObjectPlace("s3://bucket/registry").storage_options["allow_http"] == "true"


def test_table_is_there_once_it_has_a_version(place):
    put(place, "tasks.lance/data/1.lance", "tasks.lance/_versions/latest_version_hint.json")
    assert not place.has_table("tasks")
    assert place.has_no_version("tasks")
    put(place, "tasks.lance/_versions/1.manifest")
    assert place.has_table("tasks")
    assert not place.has_no_version("tasks")
    assert not place.has_table("task")


def test_empty_or_own_or_half_made_places_pass_the_check(place):
    place.check()
    with place.lock():
        place.check()
    put(place, ".creating/tasks.lance/_versions/1.manifest", "experts.lance/_versions/1.manifest")
    place.check()
    assert place.is_being_created()
    place.remove_leftovers()
    assert not place.is_being_created()
    put(place, "tasks.lance/_versions/1.manifest", "meta.lance/_versions/1.manifest")
    place.check()


def test_prefix_of_something_else_is_refused(place):
    put(place, "photo.jpg")
    message = f"{place.uri} is not empty and holds no registry; give a new or empty prefix"
    with pytest.raises(StorageError, match=f"^{re.escape(message)}$"):
        place.check()


def test_leftovers_are_removed_and_neighbours_stay(place):
    neighbour = ObjectPlace(f"{place.uri}2")
    for it in (place, neighbour):
        put(it, ".creating/tasks.lance/data/1", "tasks.lance/data/1", "spaces.lance/_versions/1.manifest")
    place.remove_leftovers()
    assert list(place._list()) == []
    assert len(list(neighbour._list())) == 3


@pytest.mark.slow
def test_many_leftovers_are_removed(place):
    """More than one listing and one deletion can hold."""
    for number in range(1100):
        put(place, f"tasks.lance/data/{number}")
    place.remove_leftovers()
    assert list(place._list()) == []


def test_publish_moves_tables_and_nothing_else(place):
    staging = ObjectPlace(place.staging_uri)
    paths = [
        f"{table}.lance/{path}" for table in ("meta", "tasks") for path in ("_versions/1.manifest", "data/1")
    ]
    put(staging, *paths, "write.lock")
    with place.lock():
        place.publish()
        place.remove_staging()
    assert sorted(place._list()) == sorted([*paths, "write.lock"])
    assert obstore.get(place._store, paths[0]).bytes() == paths[0].encode()


def test_publish_without_the_lock_leaves_meta_out(place):
    put(ObjectPlace(place.staging_uri), "meta.lance/_versions/1.manifest", "tasks.lance/_versions/1.manifest")
    with pytest.raises(StorageError, match="lost the lock"):
        place.publish()
    assert not place.has_table("meta")


def test_place_is_writable_and_asking_writes_nothing(place):
    assert place.is_writable()
    assert list(place._list()) == []
    with place.lock():
        pass
    assert place.is_writable()


def test_cache_lies_in_the_users_cache(monkeypatch, tmp_path):
    place = ObjectPlace("s3://bucket/registry")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert place.cache_folder("abc") == tmp_path / "task2vec" / "abc"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert place.cache_folder("abc") == tmp_path / ".cache" / "task2vec" / "abc"


@pytest.mark.parametrize(
    ("action", "what"),
    [
        (lambda place: place.check(), "cannot be read"),
        (lambda place: place.has_table("meta"), "cannot be read"),
        (lambda place: place.lock().__enter__(), "cannot be written"),
    ],
    ids=["check", "has_table", "lock"],
)
def test_missing_bucket_is_told(bucket, action, what):
    place = ObjectPlace(f"{bucket}-that-is-not-there/registry")
    with pytest.raises(StorageError, match=f"^{place.uri} {what}: there is no such bucket$"):
        action(place)


def test_denied_access_is_told(monkeypatch):
    with S3Server(INITIAL_NO_AUTH_ACTION_COUNT="1") as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        place = ObjectPlace(f"s3://{server.new_bucket()}/registry")  # the one action that needs no access
        message = f"{place.uri} cannot be read: access is denied; credentials are taken from the environment"
        with pytest.raises(StorageError, match=f"^{re.escape(message)}$"):
            place.check()
        with pytest.raises(StorageError, match=f"^{re.escape(message)}$"), place.lock():
            pass
        assert not place.is_writable()


def test_missing_extra_says_what_to_install():
    code = (
        "import sys; sys.modules['obstore'] = None\n"
        "from registry.errors import MissingExtraError\n"
        "from registry.storage.store import place_of\n"
        "try: place_of('s3://bucket/registry')\n"
        "except MissingExtraError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == (
        "a registry in an object store needs obstore; install it with `pip install 'task2vec-registry[s3]'`\n"
    )
