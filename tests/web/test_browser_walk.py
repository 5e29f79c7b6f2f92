"""A real browser on a real server over the starter registry: every page, by mouse and by keyboard.

``bash scripts/test.sh --browser`` installs what this needs and runs it; screenshots go to ``$T2V_SCREENSHOTS``.
"""

import io
import re

import bench_pages
import browsing
import make_screenshots
import pytest
from browser_pages import JOB_MS, LOOKS, needs_browser, shoot

pytestmark = needs_browser
PAGES = {
    "tasks": "/",
    "tasks-found": "/?search=digits&sort=num_classes&order=down",
    "tasks-none": "/?search=nothing-is-called-that",
    "task": "/tasks/mnist",
    "history": "/tasks/mnist/history",
    "recommendation": "/tasks/mnist/recommendation",
    "map": "/map",
    "map-task": "/map?task=mnist",
    "experts": "/experts?sort=mean&order=down",
    "expert": "/experts/resnet14w32.mnist",
    "results": "/results",
    "leaderboard": "/results?task=mnist",
    "compare-none": "/compare",
    "compare": "/compare?a=mnist&b=cifar10",
    "compare-tasks": "/compare/tasks?tasks=mnist,cifar10,flowers5",
    "compare-experts": "/compare/experts?experts=resnet14w32.mnist,tf_efficientnet_lite0.in1k",
    "edit": "/tasks/mnist/edit",
    "new-result": "/results/new?task=mnist",
    "recommend": "/recommend",
    "jobs": "/jobs",
    "login": "/login",
}
WRONG_PAGES = {"not-found": "/tasks/minst", "bad-filter": "/?where=num_classes+<"}
INSIDE = """([left, right, top, low]) => taskMap.points.names.filter((_, i) => {
    const [x, y] = taskMap.screenAt(i);
    return x > left && x < right && y > top && y < low;
})"""


@pytest.mark.parametrize("look", LOOKS)
def test_every_page_shows_without_a_problem_and_can_be_used_by_all(opened, pictures, look):
    page = opened(look)
    findings = {}
    for name, path in PAGES.items():
        page.goto(path)
        browsing.settle(page)
        shoot(page, pictures, f"{name}-{look}")
        if "1024" not in look and (found := browsing.accessibility_findings(page)):
            findings[name] = found
    assert findings == {}


def test_what_can_be_copied_has_a_button(opened):
    page = opened()
    page.goto("/tasks/mnist")
    page.get_by_role("button", name="Copy").wait_for()


def test_pages_of_errors_tell_what_to_do_and_can_be_used_by_all(opened, pictures):
    page = opened()
    for name, path in WRONG_PAGES.items():
        page.goto(path)
        assert page.get_by_role("alert").inner_text()
        shoot(page, pictures, f"{name}-light")
        assert browsing.accessibility_findings(page) == []
    # The browser itself notes the status of such a page, and nothing else is wrong.
    assert all(re.match(r"40[04] |console: Failed to load resource", it) for it in page.problems)
    page.problems.clear()


def test_axe_would_notice(opened):
    page = opened()
    page.goto("/login")
    page.evaluate(
        "() => { const field = document.createElement('input'); document.querySelector('main').append(field); }"
    )
    assert any("critical: label" in it for it in browsing.accessibility_findings(page))


def test_wrong_token_is_told_and_the_right_one_leads_back(opened, pictures):
    page = opened(storage_state=None)
    page.goto("/recommend")
    page.get_by_role("main").get_by_role("link", name="Log in").click()
    shoot(page, pictures, "login-form-light")
    assert browsing.accessibility_findings(page) == []
    page.get_by_label("Token").fill("wrong")
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("alert").wait_for()
    assert page.problems
    page.problems.clear()
    page.get_by_label("Token").fill(browsing.TOKEN)
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("heading", name="Which expert should I start from?").wait_for()
    page.get_by_label("Upload a zip").wait_for()
    page.get_by_role("button", name="Log out").click()
    page.get_by_role("banner").get_by_role("link", name="Log in").wait_for()


def test_upload_leads_to_experts_and_to_the_map_and_a_second_job_is_cancelled(opened, pictures, dataset):
    page = opened()
    page.goto("/recommend")
    page.get_by_label("Zip file").set_input_files(dataset)
    page.get_by_role("button", name="Recommend").click()
    page.wait_for_url(re.compile(r"/jobs/[\w-]{20,}$"))
    link = page.url
    page.get_by_text(re.compile(r"of 60")).wait_for(timeout=JOB_MS)  # progress, as it comes
    shoot(page, pictures, "job-running-light")
    assert browsing.accessibility_findings(page) == []
    page.get_by_role("heading", name="Experts to start from").wait_for(timeout=JOB_MS)
    assert page.locator("svg.bar").count() >= 8
    assert page.locator("#load").inner_text().startswith("from indexer import load_expert")
    shoot(page, pictures, "job-done-light")
    assert browsing.accessibility_findings(page) == []
    page.get_by_role("link", name="Show on the map").click()
    browsing.settle(page)
    points = page.evaluate("async () => (await fetch(document.getElementById('map').dataset.points)).json()")
    (query,) = points["queries"]
    assert query["label"] == "flowers"
    assert 0 <= query["x"] <= 65_535
    assert page.get_by_role("heading", name="Nearest to flowers").is_visible()
    assert _is_drawn(page, query, "--mark")
    shoot(page, pictures, "map-job-light")

    page.goto("/recommend")
    page.get_by_label("Zip file").set_input_files(dataset)
    page.get_by_label("Experts to try").fill("20")
    page.get_by_role("button", name="Recommend").click()
    page.wait_for_url(re.compile(r"/jobs/[\w-]{20,}$"))
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("heading", name="Cancelled", exact=True).wait_for()
    shoot(page, pictures, "job-cancelled-light")
    page.goto("/jobs")
    assert [it.strip() for it in page.locator("tbody .badge").all_inner_texts()] == ["cancelled", "done"]
    assert page.locator("tbody a").nth(1).get_attribute("href") == link.removeprefix(
        page.url.removesuffix("/jobs")
    )
    shoot(page, pictures, "jobs-light")


def _is_drawn(page, point, colour: str) -> bool:
    """Whether the map has a colour of the style sheet where a point is, when everything is shown."""
    script = """([x, y, colour]) => {
        const canvas = document.getElementById('map');
        const said = document.createElement('canvas').getContext('2d');
        said.fillStyle = getComputedStyle(document.documentElement).getPropertyValue(colour);
        said.fillRect(0, 0, 1, 1);
        const wanted = said.getImageData(0, 0, 1, 1).data;
        const [px, py] = window.taskMap.drawing.place(x, y);
        const found = canvas.getContext('2d').getImageData(px, py, 1, 1).data;
        return [0, 1, 2].every((part) => Math.abs(found[part] - wanted[part]) < 4);
    }"""
    return page.evaluate(script, [point["x"], point["y"], colour])


def test_errors_of_an_upload_are_told_beside_the_form(opened, work):
    page = opened()
    page.goto("/recommend")
    page.get_by_role("button", name="Recommend").click()
    assert page.get_by_role("alert").inner_text() == "Choose a file first."
    buffer = io.BytesIO(b"this is no zip")
    page.get_by_label("Zip file").set_input_files(
        {"name": "x.zip", "mimeType": "application/zip", "buffer": buffer.read()}
    )
    page.get_by_role("button", name="Recommend").click()
    page.get_by_text(re.compile("zip", re.IGNORECASE)).first.wait_for()
    page.wait_for_function("() => !document.getElementById('problem').hidden")
    assert "zip" in page.get_by_role("alert").inner_text()
    assert page.problems
    page.problems.clear()


def test_keyboard_alone_searches_and_opens_a_task(opened):
    page = opened()
    page.goto("/")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "search":
            break
    page.keyboard.type("omniglot_latin")
    page.keyboard.press("Enter")
    page.wait_for_url("**/?search=omniglot_latin**")
    link = page.get_by_role("link", name="omniglot_latin", exact=True)
    for _ in range(40):
        page.keyboard.press("Tab")
        if link.evaluate("it => it === document.activeElement"):
            break
    page.keyboard.press("Enter")
    page.wait_for_url("**/tasks/omniglot_latin")


def test_keyboard_alone_reads_the_map_and_opens_a_task(opened):
    page = opened()
    page.goto("/map")
    browsing.settle(page)
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "map":
            break
    said = page.locator("#map-said")
    heard = []
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp"):
        page.keyboard.press(key)
        heard.append(said.inner_text())
    assert len(set(heard)) >= 3
    assert all(re.match(r"\w+: \d+ classes, \d+ samples|No task further", it) for it in heard)
    page.keyboard.press("+")
    page.keyboard.press("0")
    page.wait_for_function("() => !document.getElementById('map-card').hidden")
    name = page.locator("#map-card strong").inner_text()
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/tasks/{name}")


def test_what_is_drawn_around_on_the_map_is_listed_with_what_is_nearest(opened):
    page = opened()
    page.goto("/map")
    page.locator("#map[data-ready]").wait_for()
    page.get_by_role("button", name="Select").click()
    box = page.locator("#map").bounding_box()
    left, right, top, low = (0.25 * box["width"], 0.75 * box["width"], 0.2 * box["height"], 0.8 * box["height"])
    inside = page.evaluate(INSIDE, [left, right, top, low])
    page.mouse.move(box["x"] + left, box["y"] + top)
    page.mouse.down()
    for x, y in ((right, top), (right, low), (left, low), (left, top)):
        page.mouse.move(box["x"] + x, box["y"] + y, steps=4)
    page.mouse.up()
    selected = page.locator("#map-selected")
    selected.get_by_role("heading", name=f"{len(inside)} selected").wait_for()
    selected.get_by_role("heading", name="Nearest").wait_for()
    lists = selected.get_by_role("list")
    assert lists.nth(0).get_by_role("link").all_inner_texts() == inside[:30]
    assert not set(lists.nth(1).get_by_role("link").all_inner_texts()) & set(inside)
    page.select_option("#map-colour", "cluster")
    page.wait_for_function("() => taskMap.regions?.length")
    assert page.evaluate("taskMap.regions.every(({ hull }) => hull.length > 1)")


def test_map_is_searched_coloured_zoomed_and_clicked(opened, pictures):
    page = opened()
    page.goto("/map")
    browsing.settle(page)
    page.get_by_label("Find").fill("handwriting")
    assert page.locator("#map-found").inner_text() == "6 found, drawn in colour."
    shoot(page, pictures, "map-found-light")
    page.get_by_label("Find").fill("")
    page.get_by_label("Colour by").select_option("kind")
    assert re.fullmatch(r"single-label: \d+", page.locator("#map-legend").inner_text())
    page.get_by_label("Colour by").select_option("cluster")
    page.wait_for_function("() => document.querySelectorAll('#map-legend li').length > 1")
    shoot(page, pictures, "map-clusters-light")
    before = page.evaluate("window.taskMap.view.scale")
    page.get_by_role("button", name="Zoom in").click()
    page.locator("#map").hover()
    page.mouse.wheel(0, -200)
    page.wait_for_function(f"() => window.taskMap.view.scale > {1.6 * before}")
    page.get_by_role("button", name="Fit").click()
    x, y = page.evaluate("window.taskMap.screenAt(window.taskMap.points.names.indexOf('mnist'))")
    page.locator("#map").hover(position={"x": x, "y": y})
    page.wait_for_function("() => document.querySelector('#map-card strong')?.textContent === 'mnist'")
    page.locator("#map").click(position={"x": x, "y": y})
    page.wait_for_url("**/tasks/mnist")


def test_pictures_of_the_readme_are_taken(opened, work):
    page = opened()
    make_screenshots.take(page, work / "map.png", make_screenshots.open_map)
    make_screenshots.take(page, work / "task.png", make_screenshots.open_task)
    for name in ("map", "task"):
        assert 20_000 < (work / f"{name}.png").stat().st_size < make_screenshots.MOST_BYTES


def test_benchmark_measures_pages_and_the_map(opened, server):
    page = opened()
    measured = bench_pages.measure_page(page, server.url, "/tasks/mnist")
    assert 0 < measured["answer"] < measured["worst"] < 10_000
    assert measured["median"] <= measured["worst"]
    moved = bench_pages.measure_map(page)
    assert 1 < moved["frames_per_second"] < 1000


def test_pages_work_without_scripts(opened):
    page = opened(java_script_enabled=False)
    page.goto("/tasks/mnist")
    page.get_by_role("link", name="Experts recommended for mnist").click()
    page.get_by_role("heading", name="Experts for mnist").wait_for()
    page.goto("/recommend?task=mnist")
    page.get_by_role("button", name="Recommend").click()
    page.wait_for_url(re.compile(r"/jobs/[\w-]{20,}$"))
    page.get_by_role("button", name="Cancel").click()
    page.wait_for_url(re.compile(r"/jobs/[\w-]{20,}$"))
    page.goto("/map")
    assert "t2v map" in page.get_by_role("status").inner_text()


def test_names_are_offered_while_one_is_typed(opened):
    page = opened()
    page.goto("/compare")
    page.get_by_label("First task").press_sequentially("omni")
    page.wait_for_function("() => document.querySelectorAll('#a-names option').length >= 3")
    offered = page.locator("#a-names option").evaluate_all("all => all.map((it) => it.value)")
    assert "omniglot_latin" in offered
