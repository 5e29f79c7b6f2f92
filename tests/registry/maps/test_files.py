"""Layouts on disk: what was written is read, and nothing else is."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest

from registry.maps import files as map_files
from registry.maps.files import LATER, Layout, LayoutFiles, UnusableLayoutError


def make_layout(count=5, **changes):
    values = {
        "identities": pa.array([f"t{n}@1:{n}" for n in range(count)], pa.string()),
        "positions": np.random.default_rng(0).normal(size=(count, 2)),
        "roles": np.arange(count, dtype=np.uint8) % 3,
        "stress": 0.25,
        "trustworthiness": 0.75,
        "num_measured": count,
        "method": "by hand",
        "seed": 0,
    }
    return Layout(**values | changes)


def same(one, other):
    return (
        one.identities.equals(other.identities)
        and one.positions.tobytes() == other.positions.tobytes()
        and one.roles.tolist() == other.roles.tolist()
        and all(
            getattr(one, name) == getattr(other, name)
            for name in ("stress", "trustworthiness", "num_measured", "method", "seed")
        )
    )


def files(folder, registry_id="registry", space_id="space"):
    return LayoutFiles(folder, registry_id, space_id)


def test_what_was_saved_is_loaded(tmp_path):
    layout = make_layout()
    files(tmp_path / "new").save(layout)
    assert same(files(tmp_path / "new").load(0), layout)


def test_each_seed_has_a_layout(tmp_path):
    for seed in (0, 7):
        files(tmp_path).save(make_layout(seed=seed, stress=seed / 10))
    assert [files(tmp_path).load(seed).stress for seed in (0, 7)] == [0, 0.7]


def test_saving_again_replaces_and_leaves_nothing_behind(tmp_path):
    files(tmp_path).save(make_layout())
    files(tmp_path).save(make_layout(3))
    assert len(files(tmp_path).load(0)) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["map-space-0.arrow"]


def test_what_is_missing_is_reported(tmp_path):
    with pytest.raises(UnusableLayoutError, match=r"^missing$"):
        files(tmp_path / "nowhere").load(0)


def test_no_damaged_file_is_believed(tmp_path):
    files(tmp_path).save(make_layout())
    path = tmp_path / "map-space-0.arrow"
    content = path.read_bytes()
    for place in range(0, len(content), 41):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(UnusableLayoutError, match="damaged"):
            files(tmp_path).load(0)
    for length in (0, 10, 32, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(UnusableLayoutError, match=r"damaged|unreadable"):
            files(tmp_path).load(0)


@pytest.mark.parametrize("owner", [("other", "space"), ("registry", "other")])
def test_no_foreign_file_is_believed(tmp_path, owner):
    files(tmp_path, *owner).save(make_layout())
    (tmp_path / f"map-{owner[1]}-0.arrow").rename(tmp_path / "map-space-0.arrow")
    with pytest.raises(UnusableLayoutError, match="of another registry, space or format"):
        files(tmp_path).load(0)


def test_a_layout_made_in_another_way_is_not_believed(tmp_path, monkeypatch):
    files(tmp_path).save(make_layout())
    monkeypatch.setattr(map_files, "FORMAT", map_files.FORMAT + 1)
    with pytest.raises(UnusableLayoutError, match="of another registry, space or format"):
        files(tmp_path).load(0)


def test_the_layout_of_one_seed_is_not_taken_for_that_of_another(tmp_path):
    files(tmp_path).save(make_layout())
    (tmp_path / "map-space-0.arrow").rename(tmp_path / "map-space-1.arrow")
    with pytest.raises(UnusableLayoutError, match="of another"):
        files(tmp_path).load(1)


def test_positions_that_are_not_finite_are_not_believed(tmp_path):
    files(tmp_path).save(make_layout(positions=np.full((5, 2), np.nan)))
    with pytest.raises(UnusableLayoutError, match="not finite"):
        files(tmp_path).load(0)


def test_a_folder_that_cannot_be_written_is_told_and_not_locked(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(OSError, match="file"):
        files(blocked).save(make_layout())
    with files(blocked).writing():
        pass


def test_tasks_that_are_placed_stand_behind_those_kept():
    layout = make_layout(3)
    kept = pa.array([True, False, True])
    followed = layout.with_placed(pa.array(["new@1:9"]), np.array([[5.0, 6.0]]), kept)
    assert followed.identities.to_pylist() == ["t0@1:0", "t2@1:2", "new@1:9"]
    np.testing.assert_array_equal(followed.positions, [layout.positions[0], layout.positions[2], [5, 6]])
    assert followed.roles.tolist() == [0, 2, LATER]
    assert dataclasses.replace(followed, identities=None).stress == layout.stress
