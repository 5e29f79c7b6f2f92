"""A real browser on a real server over the starter registry: every page, by mouse and by keyboard.

``bash scripts/test.sh --browser`` installs what this needs and runs it; screenshots go to ``$T2V_SCREENSHOTS``.
"""

import importlib.util
import io
import os
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import bench_pages
import browsing
import make_screenshots
import pytest
from builders_datasets import encoded, noise_image
from extras import shared_folder

import registry

NEEDED: dict[str, object] = {
    "playwright": importlib.util.find_spec("playwright"),
    "chromium": browsing.find_browser(),
    "axe-core": browsing.AXE.is_file(),
}
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        not all(NEEDED.values()),
        reason=f"{[it for it in NEEDED if not NEEDED[it]]} missing: bash scripts/test.sh --browser",
    ),
]
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
    "recommend": "/recommend",
    "jobs": "/jobs",
    "login": "/login",
}
WRONG_PAGES = {"not-found": "/tasks/minst", "bad-filter": "/?where=num_classes+<"}
LOOKS = {
    "light": {"color_scheme": "light", "viewport": {"width": 1280, "height": 900}},
    "dark": {"color_scheme": "dark", "viewport": {"width": 1600, "height": 1000}},
    "narrow": {"color_scheme": "light", "viewport": {"width": 360, "height": 740}},
}
CUT_OFF = """[...document.querySelectorAll(".scroll")].filter((it) => it.scrollWidth > it.clientWidth + 1)
    .map((it) => it.getAttribute("aria-label"))"""
JOB_MS = 60_000


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("browser")


@pytest.fixture(scope="module")
def pictures(work) -> Path:
    folder = Path(os.environ.get("T2V_SCREENSHOTS") or work / "screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def server(work) -> Iterator[browsing.Server]:
    registry.TaskRegistry(work / "registry").init()
    with browsing.open_server(work / "registry", work) as server:
        yield server


@pytest.fixture(scope="module")
def browser():
    with browsing.open_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def session(browser, server) -> dict:
    """Cookies of a reader who is logged in."""
    context = browser.new_context()
    browsing.log_in(context.new_page(), server.url)
    state = context.storage_state()
    context.close()
    return state


@pytest.fixture
def opened(browser, server, session):
    """Opens a page that is logged in; when the test ends, nothing may have gone wrong in any of them."""
    problems, contexts = [], []

    def open_page(look: str = "light", **options):
        context = browser.new_context(
            **{"storage_state": session, "base_url": server.url, **LOOKS[look], **options}
        )
        context.set_default_timeout(15_000)
        contexts.append(context)
        page = context.new_page()
        page.on(
            "console", lambda it: it.type in {"error", "warning"} and problems.append(f"console: {it.text}")
        )
        page.on("pageerror", lambda it: problems.append(f"script: {it}"))
        page.on("response", lambda it: it.status >= 400 and problems.append(f"{it.status} {it.url}"))
        page.on("requestfailed", lambda it: _is_wanted(it) and problems.append(f"{it.failure} {it.url}"))
        page.problems = problems
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []


def _is_wanted(request) -> bool:
    """Whether a request that failed was not just one of a page that was left meanwhile."""
    return request.failure != "net::ERR_ABORTED"


@pytest.fixture(scope="module")
def dataset(work) -> Path:
    """A zip of class folders: of flowers where there is real data."""
    source = shared_folder() / "data" / "flowers5"
    path = work / "flowers.zip"
    with zipfile.ZipFile(path, "w") as archive:
        if source.is_dir():
            for folder in sorted(source.iterdir()):
                for image in sorted(folder.glob("*.jpg"))[:12]:
                    archive.write(image, f"{folder.name}/{image.name}")
        else:
            for number in range(60):
                name = f"{'abcde'[number % 5]}/{number}.png"
                archive.writestr(name, encoded(noise_image(number, 48, 48), "PNG"))
    return path


def shoot(page, pictures: Path, name: str) -> None:
    """Take a picture of the whole page, which must not be wider than the window."""
    too_wide = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    assert too_wide <= 0, f"{name} is {too_wide} pixels too wide"
    page.screenshot(path=pictures / f"{name}.png", full_page=True)


@pytest.mark.parametrize("look", LOOKS)
def test_every_page_shows_without_a_problem_and_can_be_used_by_all(opened, pictures, look):
    page = opened(look)
    findings = {}
    for name, path in PAGES.items():
        page.goto(path)
        browsing.settle(page)
        shoot(page, pictures, f"{name}-{look}")
        if look != "narrow" and (found := browsing.accessibility_findings(page)):
            findings[name] = found
    assert findings == {}


@pytest.mark.parametrize("width", [360, 768, 1024, 1440])
def test_nothing_is_cut_off_and_what_can_be_copied_has_a_button(opened, width):
    page = opened(viewport={"width": width, "height": 800})
    for path in ("/", "/tasks/mnist", "/experts", "/experts/resnet14w32.mnist", "/results?task=mnist"):
        page.goto(path)
        browsing.settle(page)
        assert page.evaluate(CUT_OFF) == [], path
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
    page.get_by_role("link", name="Log in").wait_for()


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
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "search"
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
