"""Which files of the two packages a command or a web request passes: four ways, traced in this process.

Every module is imported before, so that only functions count which the way itself calls.
"""

import contextlib
import importlib
import io
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from sklearn.datasets import load_digits

ROOT = Path(__file__).parents[2]
PACKAGES = ("indexer", "registry")
_IS_FUNCTION = 1  # CO_OPTIMIZED: bodies of modules and classes lack it


def import_everything() -> None:
    """Import every module of both packages but those of extras that are not installed."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            with contextlib.suppress(ModuleNotFoundError):
                importlib.import_module(name)


def entered(action: Callable[[], object]) -> list[str]:
    """Paths of the files of both packages in which a function was called, in order of the first call.

    Args:
        action: What is traced, with the threads that it starts.
    """
    files: dict[str, None] = {}
    prefixes = tuple(f"{ROOT / package}/" for package in PACKAGES)

    def profile(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        path = code.co_filename
        if (
            event == "call"
            and code.co_flags & _IS_FUNCTION
            and path.startswith(prefixes)
            and path.endswith(".py")
            and code.co_name != "find_spec"  # a search for a module: one process does it, another did
        ):
            files.setdefault(path)

    threading.setprofile(profile)
    sys.setprofile(profile)
    try:
        action()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return [Path(file).relative_to(ROOT).as_posix() for file in files]


def command(registry: Path, *words: str) -> Callable[[], None]:
    """Run a command line in this process, its output thrown away.

    Args:
        registry: Folder of the registry.
        words: Of the command line, after ``t2v``.
    """
    from registry.cli.main import main

    def run() -> None:
        streams = contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO())
        with streams[0], streams[1]:
            main(["--registry", str(registry), *words], standalone_mode=False)

    return run


def request(registry: Path, state: Path, path: str) -> Callable[[], None]:
    """Ask a server in this process for one page.

    Args:
        registry: Folder of the registry.
        state: Where the server keeps what it needs.
        path: Of the page, from the root of the server.
    """
    from fastapi.testclient import TestClient

    from registry.web.app import create_app
    from registry.web.http.settings import ServeSettings

    def run() -> None:
        app = create_app(ServeSettings(uri=str(registry), token="t" * 32, state=state))
        with TestClient(app, base_url="http://127.0.0.1:8000") as client:
            client.get(path).raise_for_status()

    return run


def write_images(folder: Path) -> None:
    """Class folders of a few digits.

    Args:
        folder: Where they are made.
    """
    from PIL import Image

    digits = load_digits()
    for number in range(16):
        label = folder / str(digits.target[number] % 2)
        label.mkdir(parents=True, exist_ok=True)
        Image.fromarray(digits.images[number].astype("uint8") * 15).save(label / f"{number}.png")


def trace_ways(folder: Path) -> dict[str, list[str]]:
    """The files that each of the four ways passes, by the name that the page gives the way.

    Args:
        folder: An empty folder, for a registry with starter content, data and the state of a server.
    """
    import_everything()
    command(folder / "registry", "init")()
    write_images(folder / "images")
    ways = {
        "t2v nearest": command(folder / "registry", "nearest", "mnist"),
        "t2v task add": command(folder / "registry", "task", "add", "mine", str(folder / "images")),
        "t2v recommend": command(folder / "registry", "recommend", "mnist"),
        "GET /tasks/mnist": request(folder / "registry", folder / "state", "/tasks/mnist"),
    }
    return {name: entered(way) for name, way in ways.items()}
