"""The main job in a real browser, from data to a recorded result: on a telephone, and without a mouse.

The registry of this server has names as long as names may be.
"""

import re
from collections.abc import Iterator
from dataclasses import replace

import browsing
import pytest
from browser_pages import CUT_OFF, JOB_MS, SMALL, needs_browser, shoot

import registry

pytestmark = needs_browser
TASK, EXPERT = "n" * 128, f"{'e' * 80}/{'w' * 79}"
LONG_PAGES = (
    "/",
    "/?tag=" + "t" * 128,
    f"/tasks/{TASK}",
    f"/tasks/{TASK}/edit",
    f"/tasks/{TASK}/history",
    f"/tasks/{TASK}/recommendation",
    f"/tasks/{TASK}x",
    "/tasks/mnist",
    "/experts",
    f"/experts/{EXPERT}",
    "/experts/resnet14w32.mnist",
    "/results",
    f"/results?task={TASK}",
    f"/results?expert={EXPERT}",
    f"/results/new?task={TASK}&expert={EXPERT}",
    f"/compare?a={TASK}&b=mnist",
    f"/compare?a={TASK}x&b=mnist",
    f"/compare/tasks?tasks={TASK},mnist,cifar10,flowers5",
    f"/compare/experts?experts={EXPERT},resnet14w32.mnist,tf_efficientnet_lite0.in1k",
    f"/recommend?task={TASK}",
    f"/map?task={TASK}",
    "/jobs",
)


@pytest.fixture(scope="module")
def server(work) -> Iterator[browsing.Server]:
    tasks = registry.TaskRegistry(work / "registry")
    tasks.init()
    (space, embedding), *_ = tasks.embeddings_of("mnist")
    store, known = tasks._opened(), tasks.results(task="mnist")[0]
    tags, names = ("t" * 128, "photo"), tuple(f"{'c' * 90}{number}" for number in range(10))
    task = replace(tasks.task("mnist"), name=TASK, tags=tags, class_names=names, builtin=False, data="/d" * 100)
    store.add_tasks([(task, replace(embedding, task=TASK, checksum=0))], space.space_id)
    expert = tasks.expert("tf_efficientnet_lite0.in1k")
    named = {"license": "l" * 60, "source_task": "s" * 128, "weights_hash": "", "builtin": False}
    store.add_experts([replace(expert, name=EXPERT, **named)])
    long = {"source": "s" * 200, "protocol": "p" * 128, "weights_hash": "", "builtin": False}
    store.add_results([replace(known, task=TASK, expert=EXPERT, **long)])
    with browsing.open_server(work / "registry", work) as server:
        yield server


@pytest.mark.parametrize("width", [360, 768, 1024, 1440])
def test_no_page_is_wider_than_the_window_and_nothing_is_cut_off_or_too_small_to_press(opened, width):
    page = opened(viewport={"width": width, "height": 800})
    faults = []
    for path in LONG_PAGES:
        page.goto(path)
        browsing.settle(page)
        wide = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        cut, small = page.evaluate(CUT_OFF), page.evaluate(SMALL)
        if wide > 0 or cut or small:
            faults.append((path[:40], wide, cut, small[:3]))
    assert faults == []
    page.problems[:] = [it for it in page.problems if not re.search(r"404", it)]  # of the names that are none


def fits(page, pictures, name) -> None:
    """Whether a state of a page fits the window and can be used by all."""
    shoot(page, pictures, name)
    assert browsing.accessibility_findings(page) == []


def test_a_telephone_goes_from_data_to_a_recorded_result(opened, pictures, dataset):
    page = opened("dark-390")
    page.goto("/recommend")
    page.get_by_label("Zip file").set_input_files(dataset)
    page.get_by_role("button", name="Recommend").tap()
    page.get_by_role("heading", name="Experts to start from").wait_for(timeout=JOB_MS)
    expert = page.locator(".verdict h3 a").inner_text()
    fits(page, pictures, "loop-1-answer")
    page.get_by_label("Name of the task").fill("no name")
    page.get_by_role("button", name="Register as a task").tap()
    assert "cannot name a task" in page.get_by_role("alert").inner_text()
    fits(page, pictures, "loop-2-refused")
    page.get_by_label("Name of the task").fill("my_flowers")
    page.get_by_role("textbox", name="Tags").fill("photo mine")
    page.get_by_role("button", name="Register as a task").tap()
    page.get_by_role("heading", name="Registered").wait_for(timeout=JOB_MS)
    fits(page, pictures, "loop-3-registered")
    page.get_by_role("link", name="Record a result").tap()
    page.get_by_label("Expert").fill(expert)
    page.get_by_label("Score").fill("93")
    page.get_by_label("Protocol").fill("fine_tuned")
    page.get_by_role("button", name="Record").tap()
    assert "in per cent, write 0.93" in page.get_by_role("alert").inner_text()
    fits(page, pictures, "loop-4-not-a-share")
    page.get_by_label("Score").fill("0.93")
    page.get_by_role("button", name="Record").tap()
    page.wait_for_url("**/results?task=my_flowers#recorded")
    assert page.get_by_text("Recorded.").is_visible()
    assert re.search(rf"{expert}.*0\.930.*fine_tuned", page.locator("tbody").inner_text(), re.DOTALL)
    fits(page, pictures, "loop-5-recorded")
    page.goto("/tasks/my_flowers")
    browsing.settle(page)
    assert "mine" in page.locator(".lead").inner_text()
    assert "93.0%" in page.locator(".verdict").inner_text()
    fits(page, pictures, "loop-6-task")
    page.get_by_role("button", name="Try the next three experts").tap()
    page.get_by_role("heading", name="What was tried, in this order").wait_for(timeout=JOB_MS)
    fits(page, pictures, "loop-7-tried")
    page.goto("/results?task=my_flowers")
    assert page.locator("tbody tr").count() >= 2  # what trials reach is kept
    page.problems[:] = [it for it in page.problems if "400" not in it]  # of the two that were refused


def tab_to(page, target) -> None:
    """Go on by the keyboard to an element."""
    for _ in range(150):
        if target.evaluate("it => it === document.activeElement"):
            return
        page.keyboard.press("Tab")
    pytest.fail(f"{target} is not reached by the keyboard")


def test_the_keyboard_alone_goes_from_data_to_a_recorded_result(opened, pictures, dataset):
    page = opened("light-1440")
    page.goto("/recommend")
    browsing.settle(page)
    tab_to(page, page.get_by_label("Zip file"))
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Space")
    chooser.value.set_files(dataset)
    tab_to(page, page.get_by_role("button", name="Recommend"))
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Experts to start from").wait_for(timeout=JOB_MS)
    tab_to(page, page.get_by_label("Name of the task"))
    page.keyboard.press("Control+A")
    page.keyboard.type("by_keyboard")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Registered").wait_for(timeout=JOB_MS)
    tab_to(page, page.get_by_role("link", name="Record a result"))
    page.keyboard.press("Enter")
    for label, text in {
        "Expert": "tf_efficientnet_lite0.in1k",
        "Score": "0.91",
        "Protocol": "linear_probe_20shot",
    }.items():
        tab_to(page, page.get_by_label(label))
        page.keyboard.type(text)
    tab_to(page, page.get_by_role("button", name="Record"))
    page.keyboard.press("Enter")
    page.wait_for_url("**/results?task=by_keyboard#recorded")
    assert "0.910" in page.locator("tbody").inner_text()
    fits(page, pictures, "loop-keyboard")


def test_tasks_are_selected_compared_and_taken_along(opened, pictures):
    page = opened("light-1440")
    page.goto("/")
    page.get_by_label("Tag", exact=True).select_option("handwriting")
    page.get_by_role("button", name="Show").click()
    fits(page, pictures, "facets")
    for name in ("Select hiragana", "Select mnist", "Select omniglot_latin"):
        page.get_by_label(name, exact=True).check()
    page.get_by_role("button", name="Compare the selected").click()
    page.get_by_text("are the nearest").wait_for()
    fits(page, pictures, "selected-compared")
    with page.expect_download() as download:
        page.get_by_role("link", name="Distances as CSV").click()
    assert download.value.path().read_text().startswith("Task,")


def test_a_reader_is_told_what_writing_needs(opened, pictures):
    page = opened("light-390", storage_state=None)
    for path in ("/results/new?task=mnist", "/tasks/mnist/edit", "/recommend"):
        page.goto(path)
        assert page.get_by_role("main").get_by_role("link", name="Log in").is_visible()
        fits(page, pictures, "reader")
    page.goto("/tasks/mnist")
    browsing.settle(page)
    assert page.get_by_role("main").get_by_role("button").all_inner_texts() == ["Copy"]
