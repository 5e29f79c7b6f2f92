"""The pages as they are sent: whole, escaped, linked, and helpful where there is nothing."""

import re
from collections import Counter
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
import torch
from builders import make_embedding, make_expert, make_result, make_space, make_task
from html_pages import Page, faults_of
from web_servers import BEARER, serving

import registry
from registry.pictures.pages import STATIC as PICTURES
from registry.pictures.palette import SERIES, SERIES_DARK, THEMES
from registry.storage.rows import SheetRecord
from registry.storage.store import Store
from registry.web.pages.pages import warm
from registry.web.pages.templating import STATIC, load_code, static_path

SCRIPT = "<script>alert(1)</script>"
SHEET = b"RIFF....WEBP, of which nothing is drawn here"
PROFILE = "/compare/profile?a=flowers&b=birds"
BREAKOUT = "\"'><img src=x onerror=alert(1)>"


def fill(store: Store) -> None:
    """Tasks of all kinds, some with names of classes and data that try to be HTML, and results."""
    store.add_space(make_space())
    store.add_experts(
        [
            make_expert("resnet18.tv_in1k", source_task="flowers", source_accuracy=0.7),
            make_expert("net.unmeasured", num_params=None, flops=None, input_size=None, license=BREAKOUT),
        ]
    )
    tasks = [
        make_task("flowers", tags=("plants",), settings='{"max_samples": 2000, "seed": 0, "split": null}'),
        make_task("evil", class_names=(SCRIPT, BREAKOUT), data=f"./{SCRIPT}", settings='{"max_samples": 2}'),
        make_task(
            "birds",
            kind="multi_label",
            num_classes=3,
            class_names=("a", "b", "c"),
            settings='{"max_samples": 9}',
        ),
        make_task(
            "ages", kind="regression", num_classes=1, class_names=("age",), settings='{"max_samples": 9}'
        ),
        make_task("..", tags=("odd",), settings='{"max_samples": 9}'),
    ]
    store.add_tasks([(task, make_embedding(task.name)) for task in tasks], "space0")
    later = make_task("flowers", 2, tags=("plants",), settings='{"max_samples": 2000, "seed": 1}')
    sheet = SheetRecord("flowers", 2, 0, ("no", SCRIPT), 1, SHEET)
    store.add_tasks([(later, make_embedding("flowers", 2))], "space0", [sheet])
    store.set_alias("flowers@1", "champion")
    store.add_results(
        [
            make_result("flowers", accuracy=0.91234, source=SCRIPT),
            make_result("birds", accuracy=0.5),
            make_result("flowers", "net.unmeasured", accuracy=0.4),
        ]
    )


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    Store.create(folder / "registry", fill)
    with serving(folder / "registry", folder / "state", roots=(folder,)) as client:
        yield client


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A registry of 120 tasks."""
    folder = tmp_path_factory.mktemp("many")

    def fill_many(store: Store) -> None:
        store.add_space(make_space())
        names = [f"task{number:03}" for number in range(120)]
        pairs = [(make_task(name, num_samples=1000 - int(name[4:])), make_embedding(name)) for name in names]
        store.add_tasks(pairs, "space0")

    Store.create(folder / "registry", fill_many)
    with serving(folder / "registry", folder / "state") as client:
        yield client


def page_at(client, url: str, status: int = 200) -> Page:
    answer = client.get(url)
    assert answer.status_code == status, (url, answer.text[:2000])
    return Page(answer.text, url)


def test_samples_are_shown_where_they_were_kept(client):
    shown = client.get("/tasks/flowers").text
    assert "Samples of &lt;script" in shown
    assert SCRIPT not in shown
    (address,) = set(re.findall(r'image href="([^"]+)"', shown.replace("&amp;", "&")))
    assert address in client.get("/tasks/birds").text.replace("&amp;", "&")  # a neighbour
    assert "sheet?" not in client.get("/tasks/flowers?version=1").text.split("Most like it")[0]
    picture = client.get(address)
    assert (picture.content, picture.headers["content-type"]) == (SHEET, "image/webp")
    assert picture.headers["cache-control"] == "private, max-age=31536000, immutable"
    for plain in ("/tasks/flowers/sheet", "/tasks/flowers/sheet?version=2&checksum=5"):
        assert client.get(plain).headers["cache-control"] == "private, no-cache"
    assert client.get(address, headers={"If-None-Match": picture.headers["etag"]}).status_code == 304
    for none in ("/tasks/birds/sheet", "/tasks/flowers/sheet?version=1", "/tasks/minst/sheet", "/jobs/x/sheet"):
        assert client.get(none).status_code == 404, none


def test_the_first_page_has_counts_what_was_added_last_and_the_map(client):
    home = client.get("/").text
    assert "<strong>5</strong> tasks" in home
    recent = home.split("Added last")[1].split("</ul>")[0]
    assert recent.count("<li>") == 5
    assert "/tasks/flowers/sheet?" in recent
    assert "Added last" not in client.get("/?search=flowers").text
    assert "Log in</a> to ask" in home
    assert 'id="file"' in client.get("/", headers=BEARER).text
    assert "Map of all tasks" in client.get("/map/overview").text


def test_the_map_says_what_was_kept_of_its_tasks_and_how_long_it_takes(client, monkeypatch):
    points = client.get("/map/points").json()
    flowers = str(points["names"].index("flowers"))
    assert points["sheets"] == {flowers: [2, 1]}
    assert points["experts"] == {flowers: ["resnet18.tv_in1k"]}
    monkeypatch.setattr("registry.web.pages.map.map_of", lambda *_: None)
    waiting = client.get("/map/points?space=space0")
    assert (waiting.status_code, waiting.json()) == (202, {"unfinished": True, "tasks": 5, "seconds": 1})
    assert "being laid out" in client.get("/map/overview").text


def shape_of(url):
    """What two links have in common that differ in what is asked alone; one without a question is its own."""
    asked = urlsplit(url).query
    return (url.split("/")[1].partition("?")[0], *sorted(parse_qs(asked))) if asked else url


@pytest.mark.parametrize("most", [4, pytest.param(1000, marks=pytest.mark.slow)])
def test_every_link_of_every_page_leads_somewhere_and_no_page_has_a_fault(client, most):
    """By default four of each shape: lists alone are sorted, filtered and saved in hundreds of ways."""
    waiting, known, shapes, pages = ["/"], {"/"}, Counter(), 0
    while waiting:
        url = waiting.pop()
        answer = client.get(url, headers=BEARER)
        assert answer.status_code in {200, 202}, f"{url}: {answer.status_code}"
        if not answer.headers["content-type"].startswith("text/html"):
            continue
        pages += 1
        page = Page(answer.text, url)
        assert faults_of(page) == [], url
        for link in sorted(page.links() - known):
            known.add(link)
            shapes[shape_of(link)] += 1
            # One profile stands for all: each would look for the weights of a probe that there is not.
            if link == PROFILE or ("/profile" not in link and shapes[shape_of(link)] <= most):
                waiting.append(link)
    assert pages > 60
    assert {"/map/points", "/map/clusters", "/tasks/flowers?version=1", PROFILE} <= known


def test_faults_are_noticed():
    page = Page(
        '<p style="x" onclick="y"><input id="a"><input id="a"><a href="javascript:z"></a></p><script>w</script>'
    )
    faults = " ".join(faults_of(page))
    for fault in (
        "no single title",
        "inline style",
        "onclick",
        "id a twice",
        "no label",
        "runs",
        "inline script",
        "says",
    ):
        assert fault in faults


@pytest.mark.parametrize(
    ("url", "title", "heading"),
    [
        ("/", "Tasks", "Which expert should I start from?"),
        ("/?search=flowers", "Tasks", "Tasks"),
        ("/tasks/flowers", "flowers", "flowers version 2"),
        ("/tasks/flowers?version=1", "flowers", "flowers version 1"),
        ("/tasks/flowers/history", "History of flowers", "History of flowers"),
        ("/tasks/flowers/recommendation", "Experts for flowers", "Experts for flowers"),
        ("/map", "Map", "Map of tasks"),
        ("/map?task=birds", "Map around birds", "Map of tasks, around birds"),
        ("/experts", "Experts", "Experts"),
        ("/experts/resnet18.tv_in1k", "resnet18.tv_in1k", "resnet18.tv_in1k"),
        ("/results", "Results", "Results"),
        ("/results?task=flowers", "Leaderboard of flowers", "Leaderboard of flowers"),
        ("/results?expert=net.unmeasured", "Results of net.unmeasured", "Results of net.unmeasured"),
        ("/compare", "Compare two tasks", "Compare two tasks"),
        ("/compare?a=flowers&b=birds", "flowers and birds", "flowers and birds"),
        ("/recommend", "Recommend an expert", "Which expert should I start from?"),
        ("/login", "Log in", "Log in"),
    ],
)
def test_pages_say_what_they_are(client, url, title, heading):
    page = page_at(client, url)
    assert page.text_of("title") == f"{title} · task2vec"
    assert page.text_of("h1") == heading
    assert any(element.attributes.get("class") == "skip" for element in page.all("a"))


def test_navigation_marks_the_page(client):
    for url, marked in {"/": "Tasks", "/tasks/flowers": "Tasks", "/experts/net.unmeasured": "Experts"}.items():
        current = [
            element.text
            for element in page_at(client, url).all("a")
            if element.attributes.get("aria-current") == "page"
        ]
        assert current == [marked]


@pytest.mark.parametrize(
    "url",
    [
        "/tasks/evil",
        "/tasks/evil/history",
        "/results?task=flowers",
        "/experts/net.unmeasured",
        "/experts",
        "/tasks/flowers/recommendation",
        "/compare?a=evil&b=flowers",
    ],
)
def test_what_is_registered_is_escaped(client, url):
    text = client.get(url).text
    assert "<script>alert" not in text
    assert "<img" not in text


ECHOING = (
    "/?search={}",
    "/?where={}",
    "/?sort={}",
    "/compare?a={}&b=x",
    "/map?task={}",
    "/login?next={}",
    "/experts?search={}",
    "/recommend?task={}",
    "/tasks/{}",
    "/results?task={}",
)


@pytest.mark.parametrize("said", [SCRIPT, BREAKOUT, "{{ 7919 * 7907 }}", "javascript:alert(1)"])
@pytest.mark.parametrize("url", ECHOING)
def test_what_is_asked_is_escaped(client, url, said):
    text = client.get(url.format(said.replace("/", "%2F")), headers=BEARER).text
    assert "<script>alert" not in text
    assert "<img" not in text
    assert "62615533" not in text
    assert 'href="javascript' not in text


def test_class_names_are_shown_as_they_are(client):
    assert SCRIPT in page_at(client, "/tasks/evil").text_of("main")


def test_a_task_that_no_address_can_name_is_found_in_the_list(client):
    links = page_at(client, "/").links()
    assert "/?where=name+%3D+%27..%27" in links
    assert not any(link.startswith("/tasks/..") for link in links)


def test_lists_are_paged(many):
    first = page_at(many, "/?sort=num_samples&order=down")
    assert "1–50 of 120 tasks" in first.text_of("main")  # noqa: RUF001
    (after,) = [
        element.attributes["href"] for element in first.all("a") if element.attributes.get("rel") == "next"
    ]
    assert after == "/?sort=num_samples&order=down&page=2"
    last = page_at(many, "/?page=3")
    assert "101–120 of 120 tasks" in last.text_of("main")  # noqa: RUF001
    assert not [element for element in last.all("a") if element.attributes.get("rel") == "next"]
    beyond = page_at(many, "/?page=9")
    assert "There are 120 of them, on fewer pages than that. First page" in beyond.text_of("main")


def test_sorting_turns_round(many):
    page = page_at(many, "/?sort=num_samples&order=up")
    (heading,) = [element for element in page.all("th") if element.attributes.get("aria-sort")]
    assert (heading.text.strip(), heading.attributes["aria-sort"]) == ("Samples", "ascending")
    assert "/?sort=num_samples&order=down" in page.links()
    names = [element.text for element in page.all("th") if element.attributes.get("scope") == "row"]
    assert names[:2] == ["task119", "task118"]


def test_results_of_a_task_come_best_first(client):
    page = page_at(client, "/results?task=flowers")
    rows = [element.text for element in page.all("th") if element.attributes.get("scope") == "row"]
    assert rows == ["resnet18.tv_in1k", "net.unmeasured"]
    assert "0.912" in page.text_of("main")


def test_pages_answer_first_what_is_asked(client):
    """A close name is a link, a comparison is put in words, and a lead is one over experts measured alike."""
    wrong = client.get("/tasks/flowrs").text
    assert '<a href="/tasks/flowers">flowers</a>, or look through' in wrong
    assert re.search(r"(of all 4|% of the 4) other tasks", client.get("/compare?a=flowers&b=birds").text)
    leading = client.get("/experts/resnet18.tv_in1k").text  # it is alone on birds, which is no lead
    assert 'in the same way, on <a href="/tasks/flowers">flowers</a> (unspecified).' in leading
    assert "one of them is as good or better" in client.get("/experts/net.unmeasured").text
    history = client.get("/tasks/flowers/history").text
    assert "accuracy <code>0.91234</code>, protocol <code>unspecified</code>" in history


def test_a_recommendation_begins_with_what_to_take_its_score_in_percent_and_how_to_load_it(client):
    page = client.get("/tasks/flowers/recommendation").text
    card = page[page.index('class="card verdict"') : page.index("<table>")]
    assert re.search(r"<strong>\d+\.\d%</strong> \w+.*90% interval \d+\.\d% to \d+\.\d%", card)
    assert re.search(
        r"from indexer import load_expert, load_network\n\nnetwork = load_expert\(.*, num_classes=\d+\)\n", card
    )
    task = client.get("/tasks/flowers").text
    assert task.index('id="experts"') < task.index('id="about"')


def test_trials_are_offered_where_the_data_can_be_read(client):
    assert 'action="/tasks/flowers/try"' in client.get("/tasks/flowers", headers=BEARER).text
    assert 'name="num_trials" type="number" min="0" max="50" value="3"' in (
        client.get("/recommend?task=flowers&num_trials=3", headers=BEARER).text
    )


def test_experts_without_a_value_come_last_either_way(client):
    for order in ("up", "down"):
        page = page_at(client, f"/experts?sort=num_params&order={order}")
        rows = [element.text for element in page.all("th") if element.attributes.get("scope") == "row"]
        assert rows == ["resnet18.tv_in1k", "net.unmeasured"]


def test_a_filter_that_does_not_parse_is_told_beside_it(client):
    page = page_at(client, "/?where=num_classes+<", 400)
    (problem,) = [element for element in page.elements if element.attributes.get("role") == "alert"]
    assert "num_classes" in problem.text
    (field,) = [element for element in page.all("input") if element.attributes.get("name") == "where"]
    assert field.attributes["aria-invalid"] == "true"
    assert field.attributes["value"] == "num_classes <"
    assert faults_of(page) == []


@pytest.mark.parametrize(
    ("url", "status", "said"),
    [
        ("/tasks/flower", 404, "did you mean flowers"),
        ("/experts/resnet", 404, "no expert is named 'resnet'"),
        ("/nowhere", 404, "there is nothing at /nowhere"),
        ("/results?task=flower", 404, "did you mean flowers"),
        ("/compare?a=flowers&b=flower", 404, "did you mean flowers"),
        ("/map?task=flower", 404, "did you mean flowers"),
        ("/?page=0", 422, "query page: input should be greater than or equal to 1"),
        ("/?sort=colour", 400, "'colour'"),
        ("/experts?sort=colour", 400, "cannot be sorted by 'colour'"),
        ("/tasks/flowers?version=9", 404, "flowers@9"),
        ("/jobs/none", 404, "none"),
    ],
)
def test_errors_are_pages_with_a_sentence(client, url, status, said):
    page = page_at(client, url, status)
    assert said in page.text_of("main")
    assert faults_of(page) == []


@pytest.mark.parametrize("url", ["/", "/experts", "/results", "/map", "/compare", "/recommend"])
def test_without_a_registry_every_page_says_how_to_begin(tmp_path, url):
    with serving(tmp_path / "none", tmp_path / "state") as client:
        page = page_at(client, url)
    assert "t2v task add pets ./pets" in page.text_of("main")
    assert faults_of(page) == []


def test_starter_content_is_promised_only_where_it_will_come(tmp_path):
    for builtin in (True, False):
        with serving(tmp_path / "none", tmp_path / f"state{builtin}", builtin=builtin) as client:
            assert ("brings starter content along" in client.get("/").text) is builtin


def test_empty_lists_tell_the_next_command(tmp_path):
    registry.TaskRegistry(tmp_path / "empty").init(empty=True)
    commands = {"/": "t2v task add", "/experts": "t2v expert import torchvision", "/results": "t2v result add"}
    with serving(tmp_path / "empty", tmp_path / "state") as client:
        for url, command in commands.items():
            page = page_at(client, url)
            assert command in page.text_of("main")
            assert faults_of(page) == []
        assert client.get("/map/points").status_code == 400


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("/?search=nothing", "No task matches Try a shorter word or a wider filter. All tasks"),
        ("/experts?search=nothing", "No expert matches"),
        ("/results?task=ages", "Measure one: t2v result measure ages EXPERT"),
        (
            "/experts/net.unmeasured",
            "Wherever others were measured in the same way, one of them is as good or better.",
        ),
        ("/tasks/ages", "none yet; t2v result measure ages EXPERT makes one"),
        ("/compare?a=ages&b=evil", "No expert was measured on both in the same way."),
    ],
)
def test_nothing_found_says_where_to_go(client, url, said):
    assert said in page_at(client, url).text_of("main")


def test_points_are_columns(client):
    answer = client.get("/map/points")
    points = answer.json()
    assert points["names"] == ["..", "ages", "birds", "evil", "flowers"]
    columns = [points[name] for name in ("x", "y", "classes", "samples", "kind", "tagSet")]
    assert {len(column) for column in columns} == {5}
    assert min(points["x"]) == min(points["y"]) == 0
    assert max(points["x"] + points["y"]) == 65_535
    assert [points["kinds"][number] for number in points["kind"]][1:3] == ["regression", "multi-label"]
    assert points["tagSets"][points["tagSet"][4]] == ["plants"]
    assert 0 <= points["trustworthiness"] <= 1
    again = client.get("/map/points", headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.text) == (304, "")


def test_clusters_are_in_order_of_the_points(client):
    clusters = client.get("/map/clusters").json()
    assert len(clusters["cluster"]) == 5
    assert set(clusters["cluster"]) <= set(range(-1, len(clusters["labels"])))


def test_a_task_of_the_map_is_drawn_where_the_map_has_it(client):
    page = page_at(client, "/tasks/flowers/place")
    (marked,) = [element for element in page.all("circle") if element.attributes.get("class") == "marked"]
    assert marked.text == "flowers"
    places = np.array(
        [[float(element.attributes["cx"]), float(element.attributes["cy"])] for element in page.all("circle")]
    )
    assert (places >= 0).all()
    assert (places <= [420, 300]).all()


def test_card_has_error_bars_of_what_is_counted_only(client):
    counted = [
        element.attributes.get("aria-label", "") for element in page_at(client, "/tasks/flowers").all("svg")
    ]
    assert "balanced accuracy 0.750, from 0.665 to 0.835" in counted  # 1.96 sqrt(.75 .25 / 100)
    others = [
        element.attributes.get("aria-label", "") for element in page_at(client, "/tasks/birds").all("svg")
    ]
    assert not any("precision" in label for label in others)


def test_static_files_may_be_kept_by_the_hash_of_their_content(client):
    assert (
        client.get(static_path("style.css")).headers["cache-control"] == "public, max-age=31536000, immutable"
    )
    for url in ("/static/style.css", "/static/style.css?v=0"):
        assert client.get(url).headers["cache-control"] == "private, no-cache"
    assert client.get("/static/../templating.py").status_code == 404


def test_colours_of_the_pages_are_those_of_the_plots():
    light, dark = (PICTURES / "style.css").read_text().split("@media (prefers-color-scheme: dark)")
    for number, (in_light, in_dark) in enumerate(zip(SERIES, SERIES_DARK, strict=True), start=1):
        assert f"--series-{number}: {in_light};" in light
        assert (f"--series-{number}: {in_dark};" in dark) == (in_light != in_dark)
    for theme, text in ((THEMES["light"], light), (THEMES["dark"], dark)):
        assert f"--ink: {theme.ink};" in text
        assert f"--soft: {theme.soft};" in text
        assert f"--line: {theme.line};" in text


def test_pages_take_nothing_from_elsewhere():
    for path in sorted([*STATIC.iterdir(), *PICTURES.iterdir()]):
        addresses = re.findall(r"(?:https?:)?//[\w.-]+\.\w{2,}[^\s\"')]*", path.read_text())
        assert [element for element in addresses if "www.w3.org" not in element] == [], path.name


def test_what_the_first_reader_waits_for_is_read_ahead(tmp_path, monkeypatch):
    Store.create(tmp_path / "registry", fill)
    asked = []
    ahead = registry.TaskRegistry(tmp_path / "registry")
    monkeypatch.setattr(ahead, "nearest", lambda name, k: asked.append(("nearest", name, k)))
    monkeypatch.setattr(ahead, "recommend", lambda name, k: asked.append(("recommend", name, k)))
    warm(ahead)
    assert asked == [("nearest", "..", 1), ("recommend", "..", 1)]
    warm(registry.TaskRegistry(tmp_path / "none"))  # says so in the log, and ends no server


def test_the_page_of_an_expert_begins_with_how_good_it_is_and_code_that_runs():
    line = 'from indexer import load_expert; network = load_expert("resnet14w32.mnist")'
    made: dict[str, Any] = {}
    exec(load_code(line, num_classes=3), made)  # what a reader of the page copies
    assert made["network"](torch.zeros(2, 3, 64, 64)).shape == (2, 3)
    assert made["inputs"].mean
    inert = "# an import brought it: look at it"
    assert load_code(inert, num_classes=3) == inert


def test_what_leads_is_said_of_each_way_of_measuring_before_the_list(client):
    card = client.get("/results?task=flowers").text
    card = card[card.index('class="card verdict"') : card.index("<form")]
    assert re.search(r"(leads with|reached) 0\.\d{3}</strong> accuracy", card)
