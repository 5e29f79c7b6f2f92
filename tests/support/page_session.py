"""Run the shell and Python blocks of a page in order, in one folder, as a reader would type them."""

import io
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import numpy as np
import torch
from builders_datasets import write_folder
from builders_texts import save_encoder, write_reviews
from click.testing import CliRunner
from markdown_pages import Fence, fences

from indexer.networks.loaders import BUILTIN_FOLDER
from indexer.networks.torchvision import models
from registry.cli.main import main
from registry.faces import terminal

LANGUAGES = ("python", "bash")
OUTPUT = "text output"
"""A block that shows what the block before it printed, in ``COLUMNS``; numbers, which change from machine to
machine, are not compared, nor is what ``...`` stands for."""
COLUMNS = 80
HOME = "/home/ada"
"""What is shown in place of the folder around the working one."""

ELSEWHERE = {
    r"pip install .*": "scripts/check_wheel.sh installs what is built, scripts/test.sh what is here",
    r"bash scripts/\w+\.sh.*|t2v demo": "CI and tests of their own run them",
    r"t2v task add.* --engine processes.*": "starting processes takes seconds, and tests of their own do it",
    r't2v task add \w+ "?hf-data:.*': "the library downloads or copies data, and tests of its own do it",
    r"python scripts/make/.*": "hours of work, which made the content that ships",
}
"""Lines of shell that are not run here, and why."""

NUMBER = r"-?\d[\d.,]*"
_PLAIN = re.compile(r"t2v( [^|&;<>$`*~#]*)?")
_FILE_NAME = re.compile(r"# (\w+\.py)\n")


class PageSession:
    """A reader at work: a folder of data, a registry with starter content, one Python session.

    The caller makes the folder the working one and ``$T2V_REGISTRY`` a place in it.
    """

    def __init__(self, page: Path) -> None:
        self._page = page
        self._namespace = {"__name__": "__main__"}
        self.printed = ""

    def run(self, block: Fence) -> None:
        """Run a block, or compare one of output with what was printed; what fails says where."""
        if block.info == OUTPUT:
            expected, printed = (
                " ".join(re.sub(NUMBER, "#", text).split()) for text in (block.code, self.printed)
            )
            pattern = ".*".join(map(re.escape, expected.split("...")))
            fresh = "scripts/make/make_outputs.py writes what is printed now"
            where = f"{self._page.name}, line {block.line}"
            assert re.fullmatch(pattern, printed), f"{where}: {fresh}:\n{self.printed}"
            return
        written = io.StringIO()
        with terminal.for_people(COLUMNS), redirect_stdout(written):
            if block.info == "python":
                self._run_python(block)
            else:
                self._run_shell(block)
        self.printed = written.getvalue().replace(str(Path.cwd().parent), HOME)

    def _run_python(self, block: Fence) -> None:
        code = "\n" * (block.line - 1) + block.code  # so that a traceback names the line of the page
        if name := _FILE_NAME.match(block.code):
            Path(name[1]).write_text(block.code, encoding="utf-8")
        else:
            exec(compile(code, str(self._page), "exec"), self._namespace)

    def _run_shell(self, block: Fence) -> None:
        lines = shell_lines(block.code)
        if all(_PLAIN.fullmatch(line) for line in lines):
            for line in lines:
                self._run_command(line, block)
        elif lines:
            script = f"set -euo pipefail\nPATH={Path(sys.executable).parent}:$PATH\n" + "\n".join(lines)
            done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{self._page.name}, line {block.line}: {done.stdout}{done.stderr}"
            sys.stdout.write(done.stdout)

    def _run_command(self, line: str, block: Fence) -> None:
        """Run a command in this process: starting one for each would take most of the time."""
        done = CliRunner().invoke(main, shlex.split(line)[1:], catch_exceptions=False)
        assert done.exit_code == 0, f"{self._page.name}, line {block.line}: {line}: {done.output}"
        sys.stdout.write(done.output)


@contextmanager
def server(log: Path) -> Iterator[str]:
    """The URL of a real server of ``$T2V_REGISTRY`` that takes data below the working folder."""
    program = [str(Path(sys.executable).with_name("t2v")), "serve", "--port", "0", "--allow-root", "."]
    with log.open("w") as stream, subprocess.Popen(program, stderr=stream) as process:
        try:
            yield _announced_url(log, process)
        finally:
            process.terminate()


def _announced_url(log: Path, process: subprocess.Popen) -> str:
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        if announced := re.search(r" at (http://\S+)", log.read_text()):
            return announced[1]
        time.sleep(0.05)
    raise AssertionError(f"no server: {log.read_text()}")


def blocks(text: str) -> list[Fence]:
    """The blocks of a page that are run or compared."""
    return [block for block in fences(text) if block.info in (*LANGUAGES, OUTPUT)]


def shell_lines(code: str) -> list[str]:
    """Lines of a shell block that are run here, without comments, continued ones joined."""
    joined = (re.sub(r"\s+# .*|^# .*", "", line).strip() for line in code.replace("\\\n", " ").splitlines())
    return [line for line in joined if line and not any(re.fullmatch(pattern, line) for pattern in ELSEWHERE)]


def prepare(folder: Path) -> None:
    """The data that pages speak of, as a reader would have it."""
    for seed, name in enumerate(("flowers", "pets", "new-photos")):
        write_folder(folder / name, {f"{name}-{label}": 12 for label in "abc"}, first_seed=10_000 * seed)
    photos = sorted(folder.glob("flowers/*/*.png"))
    rows = [
        f"{path.relative_to(folder)},{('red', 'red|round', 'round')[i % 3]}" for i, path in enumerate(photos)
    ]
    (folder / "scenes.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    generator = np.random.default_rng(0)
    fields = generator.integers(0, 10_000, (30, 16, 16, 4), dtype=np.uint16)
    np.savez(folder / "fields.npz", images=fields, labels=np.arange(30) % 3)
    (folder / "results.csv").write_text("task,expert,accuracy\ndigits,resnet14w32.cifar10,0.93\n")
    (folder / "experts.csv").write_text("expert,num_params,license\nvit_small.birds,22e6,mit\n")
    (folder / "datasets.csv").write_text("name,data,tags\ngarden,./flowers,plants\nanimals,./pets,fur\n")
    write_reviews(folder / "reviews.csv")
    save_encoder(folder / "encoder")
    shutil.copy(BUILTIN_FOLDER / "resnet14w32.flowers5.safetensors", folder / "birds.safetensors")


def cache_weights(folder: Path) -> None:
    """What torchvision would download, in torch's cache: the architecture with random weights."""
    checkpoints = folder / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True)
    torch.save(models.resnet18().state_dict(), checkpoints / "resnet18-f37072fd.pth")
