"""What browser tests share: whether they can run, how pages look, and what every page keeps to."""

import importlib.util
from pathlib import Path
from typing import Any

import browsing
import pytest

NEEDED: dict[str, object] = {
    "playwright": importlib.util.find_spec("playwright"),
    "chromium": browsing.find_browser(),
    "axe-core": browsing.AXE.is_file(),
}
needs_browser = [
    pytest.mark.browser,
    pytest.mark.skipif(
        not all(NEEDED.values()),
        reason=f"{[it for it in NEEDED if not NEEDED[it]]} missing: bash scripts/test.sh --browser",
    ),
]
LOOKS: dict[str, dict[str, Any]] = {
    f"{theme}-{width}": {
        "color_scheme": theme,
        "viewport": {"width": width, "height": 900},
        "has_touch": width < 640,
    }
    for theme in ("light", "dark")
    for width in (390, 1024, 1440)
}
CUT_OFF = """[...document.querySelectorAll(".scroll")].filter((it) => it.scrollWidth > it.clientWidth + 1)
    .filter((it) => it.querySelector("table") || window.innerWidth > 640)  // drawings may scroll on a telephone
    .map((it) => it.getAttribute("aria-label"))"""
PRESSED = "main :is(a, button, input:not([type=hidden]), select, summary)"
SMALL = (
    f"[...document.querySelectorAll('{PRESSED}')]"
    """.filter((it) => {
    const { width, height } = it.getBoundingClientRect();
    const shown = width && !it.closest("svg") && getComputedStyle(it).visibility !== "hidden";
    return shown && Math.min(width, height) < 23.5;
}).map((it) => it.outerHTML.slice(0, 120))"""
)
JOB_MS = 60_000


def shoot(page, pictures: Path, name: str) -> None:
    """Take a picture of the whole page, which must not be wider than the window."""
    too_wide = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    assert too_wide <= 0, f"{name} is {too_wide} pixels too wide"
    page.screenshot(path=pictures / f"{name}.png", full_page=True)
