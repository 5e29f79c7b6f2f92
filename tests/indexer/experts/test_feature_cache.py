"""indexer.experts.feature_cache: what was put comes back, nothing else does, and the folder stays within its
size."""

import os
from pathlib import Path

import numpy as np
import pytest

from indexer.experts.feature_cache import FeatureCache, default_folder

FEATURES = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
LABELS = np.array([0, 1, 0, 1, 1])


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    return FeatureCache(tmp_path / "features")


@pytest.mark.parametrize(
    "labels",
    [LABELS, np.eye(5, 2, dtype=np.uint8), np.ones((5, 1), np.float32)],
    ids=["one", "several", "number"],
)
def test_what_was_put_comes_back(cache: FeatureCache, labels: np.ndarray):
    assert cache.get("key") is None
    cache.put("key", FEATURES[:, ::-1], labels)
    features, found = cache.get("key")
    np.testing.assert_array_equal(features, FEATURES[:, ::-1])
    np.testing.assert_array_equal(found, labels)
    assert (features.dtype, found.dtype) == (FEATURES.dtype, labels.dtype)
    assert cache.get("other") is None


def test_any_changed_byte_and_any_cut_is_noticed(cache: FeatureCache):
    cache.put("key", FEATURES, LABELS)
    (path,) = cache.folder.iterdir()
    content = path.read_bytes()
    for place in [*range(48), *range(48, len(content), 7)]:  # every byte of the checksum
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        assert cache.get("key") is None
        path.write_bytes(content[:place])
        assert cache.get("key") is None
    path.write_bytes(content)
    assert cache.get("key") is not None


def test_the_file_of_another_key_is_not_taken_for_its_own(cache: FeatureCache):
    cache.put("one", FEATURES, LABELS)
    (path,) = cache.folder.iterdir()
    cache.put("two", FEATURES + 1, LABELS)
    (other,) = set(cache.folder.iterdir()) - {path}
    path.replace(other)
    assert cache.get("two") is None


def test_damage_is_repaired_by_putting_it_again(cache: FeatureCache):
    cache.put("key", FEATURES, LABELS)
    (path,) = cache.folder.iterdir()
    path.write_bytes(b"nothing of the kind")
    cache.put("key", FEATURES, LABELS)
    np.testing.assert_array_equal(cache.get("key")[0], FEATURES)


def test_what_was_used_longest_ago_is_deleted_first(cache: FeatureCache):
    cache.put("size", FEATURES, LABELS)
    (path,) = cache.folder.iterdir()
    small = FeatureCache(cache.folder, max_bytes=3 * path.stat().st_size)
    path.unlink()
    for age, key in enumerate("abc"):
        small.put(key, FEATURES, LABELS)
        for new in cache.folder.iterdir():
            if new.stat().st_mtime > 1e9:
                os.utime(new, (age, age))
    assert small.get("a")  # used now, so that b is the oldest
    small.put("d", FEATURES, LABELS)
    assert [key for key in "abcd" if small.get(key)] == ["a", "c", "d"]
    assert sum(file.stat().st_size for file in cache.folder.iterdir()) <= small.max_bytes


def test_what_a_kill_left_is_deleted_too(cache: FeatureCache):
    cache.put("key", FEATURES, LABELS)
    (path,) = cache.folder.iterdir()
    left = cache.folder / "left.tmp"
    left.write_bytes(b"x" * 100)
    os.utime(left, (1, 1))
    FeatureCache(cache.folder, max_bytes=2 * path.stat().st_size + 50).put("other", FEATURES, LABELS)
    assert not left.exists()
    assert cache.get("key")
    assert cache.get("other")


def test_what_is_larger_than_the_cache_is_not_kept(cache: FeatureCache):
    FeatureCache(cache.folder, max_bytes=50).put("key", FEATURES, LABELS)
    assert not cache.folder.exists()


def test_a_place_that_cannot_be_written_is_no_error(tmp_path: Path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/features")):
        cache = FeatureCache(folder)
        cache.put("key", FEATURES, LABELS)
        assert cache.get("key") is None


def test_no_half_file_is_left_where_writing_fails(cache: FeatureCache):
    cache.put("key", FEATURES, LABELS)
    (path,) = cache.folder.iterdir()
    path.unlink()
    path.mkdir()  # a file cannot be moved onto a folder
    cache.put("key", FEATURES, LABELS)
    assert list(cache.folder.iterdir()) == [path]


def test_the_folder_is_in_the_cache_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "task2vec" / "features"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_folder() == tmp_path / ".cache" / "task2vec" / "features"
