"""Pictures: what groups there are, and that files say it, the same each time."""

import base64
import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from builders_maps import grouped, make_registry, record
from extras import skip_without
from PIL import Image

from registry.errors import InvalidQueryError, MissingExtraError, StorageError
from registry.ingest import networks
from registry.map_answers import LayerAgreement, LayerProfile
from registry.options import COLOURINGS
from registry.pictures import figures, pictures
from registry.pictures.layers import draw_layers
from registry.pictures.palette import THEMES

LAYERS = (("conv1", 16), ("layer1", 40), ("fc", 8))
HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    """A registry of 24 tasks in three groups, and one of labels without tags."""
    registry, store = make_registry(tmp_path_factory.mktemp("registry"), 24)
    store.add_tasks([record("odd", grouped(1, seed=9)[0] ** 2, kind="multi_label")], "space0")
    return registry


@pytest.fixture(scope="module")
def shown(registry):
    return registry.map(["task002", (HOSTILE, grouped(24)[5])], neighbors=2)


@pytest.fixture(scope="module")
def clustering(registry):
    return registry.clusters()


@pytest.fixture
def profile(registry, monkeypatch):
    monkeypatch.setattr(networks, "probe_layers", lambda _space: LAYERS)
    return registry.profile("task000", "task001")


# What is drawn


@pytest.mark.parametrize("colour", COLOURINGS)
def test_every_task_is_in_one_group(shown, clustering, colour):
    groups = figures.groups_of(shown, colour, clustering)
    assert sorted(np.concatenate([group.members for group in groups]).tolist()) == list(range(25))
    looks = [(group.colour, group.shape) for group in groups if group.colour != figures.REST]
    assert len(set(looks)) == len(looks)


def test_groups_are_those_of_clusters_tags_and_kinds(shown, clustering):
    labels = {
        colour: [group.label for group in figures.groups_of(shown, colour, clustering)] for colour in COLOURINGS
    }
    assert labels["tag"][0] == "even: 12"
    assert labels["tag"][-1] == "no tag: 1"
    assert labels["kind"] == ["single-label: 24", "multi-label: 1"]
    assert labels["cluster"][-1] == "alone in a cluster: 1"
    assert [label.rpartition(": ")[2] for label in labels["cluster"]] == ["8", "8", "8", "1"]


def test_no_two_of_many_clusters_look_alike():
    groups = [figures._group("x", np.zeros(1, int), number) for number in range(64)]
    assert len({(group.colour, group.shape) for group in groups}) == 64
    assert len({group.shape for group in groups[:8]}) == 8  # shapes alone tell the first eight apart


def test_long_labels_are_cut():
    assert figures.shortened("short") == "short"
    assert len(figures.shortened("a" * 100)) == figures.LABEL_LENGTH
    assert figures.shortened("a" * 100).endswith("…")


def test_a_caption_says_how_far_a_map_can_be_trusted(shown):
    assert figures.caption_of(shown) == (
        f"task2vec distances, t-SNE from a classical MDS start, seed 0. Trustworthiness "
        f"{shown.trustworthiness:.3f} (10 neighbours), stress-1 {shown.stress:.3f}."
    )
    assert figures.axis_label("log_euclidean") == "log_euclidean distance (nats)"


def test_the_tree_holds_every_task_once(clustering):
    order, lines = figures.tree_of(clustering)
    assert sorted(order) == list(range(25))
    assert len(lines) == 24
    assert max(max(heights) for _, heights in lines) == pytest.approx(clustering.tree[-1, 2])


# As a page


def inlined(page, name):
    """The data in a page."""
    return json.loads(re.search(rf'<script type="application/json" id="{name}-data">(.*?)</script>', page)[1])


@pytest.fixture(scope="module")
def page(shown, clustering, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "map.html"
    pictures.write_map(path, shown, clustering=clustering)
    return path.read_text(encoding="utf-8")


def test_a_page_loads_nothing(page):
    assert not re.search(r"""(src|href)=|@import|url\(""", page)
    assert 50_000 < len(page) < 100_000


def test_a_page_has_a_title_a_language_and_a_description(page):
    assert page.startswith('<!DOCTYPE html>\n<html lang="en">')
    assert "<title>Map of 25 tasks, and task002 and &lt;script&gt;" in page
    assert 'role="application" aria-label="Map of 25 tasks' in page
    assert "prefers-color-scheme: dark" in page
    assert page.count("<tr>") == 25 + 2 + 1


def test_nothing_that_a_user_wrote_becomes_script(page):
    assert HOSTILE not in page
    assert "&lt;script&gt;alert(1)" in page
    assert inlined(page, "map")["points"]["queries"][1]["label"] == HOSTILE


def test_a_page_says_what_each_task_is(page, shown, clustering):
    data = inlined(page, "map")
    points, row = data["points"], shown.names.index("task000")
    assert points["names"] == list(shown.names)
    assert points["kinds"][points["kind"][row]] == "single-label"
    assert points["counted"] == ["labels", "classes"]
    assert (points["classes"][row], points["samples"][row]) == (2, 100)
    assert points["tagSets"][points["tagSet"][row]] == ["even", "group0"]
    name, distance = shown.nearest[row][0]
    assert points["neighbors"][row].startswith(f"{name} {distance:.3f}, ")
    clusters = data["clusters"]
    assert clusters["medoids"] == [cluster.medoid for cluster in clustering.clusters]
    assert clusters["cluster"][row] == clustering.labels[row] - 1


def test_a_page_of_one_theme_knows_no_other(shown, tmp_path):
    pictures.write_map(tmp_path / "map.html", shown, colour="kind", theme="dark")
    style = (tmp_path / "map.html").read_text(encoding="utf-8").partition("</style>")[0]
    assert "color-scheme: dark;" in style
    assert "@media all {\n  :root {" in style
    assert "prefers-color-scheme" not in style


def test_the_same_page_has_the_same_bytes(shown, clustering, page, tmp_path):
    pictures.write_map(tmp_path / "map.html", shown, clustering=clustering)
    assert (tmp_path / "map.html").read_text(encoding="utf-8") == page


def test_a_matrix_page_shows_its_numbers(clustering, tmp_path):
    pictures.write_matrix(tmp_path / "matrix.html", clustering)
    page = (tmp_path / "matrix.html").read_text(encoding="utf-8")
    data = inlined(page, "matrix")
    order, lines = figures.tree_of(clustering)
    assert data["names"] == [clustering.names[row] for row in order]
    shares = np.frombuffer(base64.b64decode(data["shares"]), "<u2").reshape(25, 25)
    drawn = shares / 65_535 * data["largest"]
    np.testing.assert_allclose(drawn, clustering.matrix[np.ix_(order, order)], atol=1e-4)
    assert page.count(">task000</text>") == 2
    assert page.count('class="frame"') == 3
    tree = re.search(r'class="tree" d="([^"]*)"', page)[1]
    assert tree.count("M") == len(lines)


def test_a_profile_page_shows_its_numbers(profile, tmp_path):
    pictures.write_profile(tmp_path / "layers.html", profile)
    page = (tmp_path / "layers.html").read_text(encoding="utf-8")
    assert page.count('class="point-1"') == page.count('class="range"') == len(LAYERS)
    for layer in profile.layers:
        assert f"{layer.distance:.3f}" in page
        assert f"{layer.source_mean:.3g} ± {layer.source_error:.2g}" in page


def test_profile_has_both_tasks_in_every_layer():
    layers = tuple(LayerAgreement(f"layer{n}", 8, n / 10, 10.0**-n, 1e-9, 2e-3, 1e-3) for n in range(10))
    svg = draw_layers(LayerProfile("<a>", "b", "space", "probe", 0.5, layers))
    assert svg.count('class="point-1"') == svg.count('class="point-2"') == svg.count('class="range"') == 10
    assert "1e-9" in svg
    assert "<a>" not in svg


def test_profile_stands_zero_and_no_layers():
    layers = (LayerAgreement("dead", 1, 0.0, 0.0, 0.0, 0.0, 0.0),)
    assert "dead" in draw_layers(LayerProfile("a", "b", "space", "probe", 0.0, layers))
    assert "</svg>" in draw_layers(LayerProfile("a", "b", "space", "probe", 0.0, ()))


# As an image


@pytest.mark.parametrize("theme", THEMES)
def test_a_map_is_drawn_on_its_ground(shown, clustering, theme, tmp_path):
    skip_without("matplotlib")
    pictures.write_map(tmp_path / "map.png", shown, clustering=clustering, theme=theme)
    with Image.open(tmp_path / "map.png") as image:
        assert image.width > 1500
        assert "#{:02x}{:02x}{:02x}".format(*image.convert("RGB").getpixel((2, 2))) == THEMES[theme].ground


def test_an_svg_has_the_same_bytes_each_time_and_no_date(shown, clustering, tmp_path):
    skip_without("matplotlib")
    for name in ("one.svg", "two.svg"):
        pictures.write_map(tmp_path / name, shown, clustering=clustering)
    content = (tmp_path / "one.svg").read_bytes()
    assert content == (tmp_path / "two.svg").read_bytes()
    assert b"<dc:date>" not in content
    assert ET.fromstring(content).tag.endswith("svg")


def test_other_images_are_drawn(clustering, profile, tmp_path):
    skip_without("matplotlib")
    pictures.write_matrix(tmp_path / "matrix.png", clustering, "dark")
    pictures.write_profile(tmp_path / "layers.PNG", profile)
    for name in ("matrix.png", "layers.PNG"):
        with Image.open(tmp_path / name) as image:
            assert len(image.convert("RGB").getcolors(2**24)) > 20


def test_names_cover_neither_points_nor_each_other():
    from registry.pictures import images

    centre = np.array([100.0, 100.0])
    frame = type("Frame", (), {"x0": 0, "y0": 0, "x1": 400, "y1": 400})
    spots = images._spots(centre, 50, 10, 12)
    obstacles = np.array([[92.0, 92, 108, 108], [130, 95, 146, 111]])
    free = [images._is_free(spot, np.empty((0, 4)), frame, obstacles, centre) for spot in spots]
    assert free[:2] == [False, True]  # there is a point on the right, none on the left
    taken = spots[1][None]
    assert not images._is_free(spots[1], taken, frame, obstacles, centre)
    assert not images._is_free(spots[1] - 60, np.empty((0, 4)), frame, obstacles, centre)


@pytest.mark.parametrize("count", [1, 2])
def test_a_few_tasks_are_drawn(tmp_path, count):
    skip_without("matplotlib")
    registry, _ = make_registry(tmp_path / "registry", count)
    clustering = registry.clusters()
    for name in ("map.svg", "map.html"):
        pictures.write_map(tmp_path / name, registry.map(neighbors=3), clustering=clustering)
    for name in ("matrix.svg", "matrix.html"):
        pictures.write_matrix(tmp_path / name, clustering)


# What cannot be drawn


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("map.gif", "map.gif: a picture ends in .html, .png or .svg; name such a file"),
        ("map", "map: a picture ends in .html, .png or .svg; name such a file"),
        ("nowhere/map.png", "nowhere/map.png: there is no folder nowhere; make it first"),
    ],
)
def test_a_file_that_is_no_picture_is_reported(path, message):
    with pytest.raises(InvalidQueryError, match=f"^{re.escape(message)}$"):
        pictures.check_path(Path(path))


def test_a_missing_extra_is_reported_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "find_spec", lambda _name: None)
    message = "a picture as .svg needs matplotlib; install it with `pip install 'task2vec-registry[plot]'`"
    with pytest.raises(MissingExtraError, match=f"^{re.escape(message)}$"):
        pictures.check_path(tmp_path / "a.svg")
    pictures.check_path(tmp_path / "a.html")


@pytest.mark.parametrize("name", ["a.html", "a.svg"])
def test_a_file_that_cannot_be_written_is_reported(shown, tmp_path, name):
    skip_without("matplotlib")
    (tmp_path / name).mkdir()
    with pytest.raises(StorageError, match=f"{name}: Is a directory"):
        pictures.write_map(tmp_path / name, shown, colour="kind")


def test_a_matrix_that_is_too_large_is_reported(clustering):
    import dataclasses

    with pytest.raises(InvalidQueryError, match="a matrix of 25 tasks is too large to draw"):
        figures.tree_of(dataclasses.replace(clustering, matrix=None))
