"""Make the pictures of the README: the map, a task, and a recommendation for data that is uploaded.

A real server over a fresh registry with the starter content, a real Chromium, and images of ``--data``, a
folder of class folders of which a few are uploaded. Pictures come out alike, but for times.

Run: python scripts/make/make_screenshots.py --data ../shared/data/ants_bees
"""

import argparse
import re
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import browsing
from PIL import Image

from registry.core import TaskRegistry

if TYPE_CHECKING:
    from playwright.sync_api import Page, ViewportSize

IMAGES = Path(__file__).parents[2] / "docs" / "images"
MOST_BYTES = 200_000
SIZE: "ViewportSize" = {"width": 1200, "height": 860}
PER_CLASS = 60
TASK = "cats_dogs"
JOB_MILLISECONDS = 300_000


def main() -> None:
    """Parse the arguments, then take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, required=True, help="class folders of which some images are uploaded"
    )
    parser.add_argument("--out", type=Path, default=IMAGES, help="folder for the pictures")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        TaskRegistry(work / "registry").init()
        upload = zip_of(arguments.data, work / f"{arguments.data.name}.zip")
        with browsing.open_server(work / "registry", work) as server, browsing.open_browser() as browser:
            context = browser.new_context(base_url=server.url, viewport=SIZE)
            page = context.new_page()
            browsing.log_in(page, server.url)
            page.set_viewport_size({"width": 1200, "height": 1090})
            take(page, arguments.out / "map.png", open_map)
            page.set_viewport_size(SIZE)
            take(page, arguments.out / "task.png", open_task)
            take(page, arguments.out / "recommendation.png", lambda it: open_recommendation(it, upload))


def zip_of(folder: Path, path: Path) -> Path:
    """Some images of each class folder, as a zip."""
    with zipfile.ZipFile(path, "w") as archive:
        for of_class in sorted(it for it in folder.iterdir() if it.is_dir()):
            for image in sorted(it for it in of_class.iterdir() if it.is_file())[:PER_CLASS]:
                archive.write(image, f"{of_class.name}/{image.name}")
    return path


def open_map(page: "Page") -> None:
    """The map, one task chosen."""
    page.goto("/map")
    browsing.settle(page)
    x, y = page.evaluate("window.taskMap.screenAt(window.taskMap.points.names.indexOf('hiragana'))")
    page.locator("#map").hover(position={"x": x, "y": y})
    page.locator("#map-card strong").wait_for()


def open_task(page: "Page") -> None:
    """The card of a task with its experts."""
    page.goto(f"/tasks/{TASK}")
    browsing.settle(page)


def open_recommendation(page: "Page", upload: Path) -> None:
    """What is recommended for images that are uploaded, after two trials."""
    page.goto("/recommend")
    page.get_by_label("Zip file").set_input_files(upload)
    page.get_by_label("Experts to try").fill("2")
    page.get_by_role("button", name="Recommend").click()
    page.wait_for_url(re.compile(r"/jobs/"))
    page.get_by_role("heading", name="Experts to start from").wait_for(timeout=JOB_MILLISECONDS)
    page.evaluate("document.activeElement.blur()")


def take(page: "Page", path: Path, opened: Callable[["Page"], None]) -> None:
    """Open a page and write what a window of it shows.

    Raises:
        SystemExit: If the file is too large for a page that people load.
    """
    opened(page)
    page.wait_for_timeout(300)
    page.screenshot(path=path)
    with Image.open(path) as image:
        opaque = image.convert("RGB")
    opaque.save(path, optimize=True)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")
    if path.stat().st_size > MOST_BYTES:
        raise SystemExit(f"{path} is larger than {MOST_BYTES:,} bytes")


if __name__ == "__main__":
    main()
