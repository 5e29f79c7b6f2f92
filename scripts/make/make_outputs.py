"""Run pages as a reader would, write what is printed under their commands, and make the notebook.

    python scripts/make/make_outputs.py docs/tutorial.md README.md

A block ``text output`` gets what the block before it printed; ``...`` stays where it is, for lines left out.
"""

import json
import os
import re
import sys
import tempfile
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "support"))

from markdown_pages import Fence, fences  # noqa: E402
from page_session import LANGUAGES, OUTPUT, PageSession, prepare  # noqa: E402

PICTURES = {ROOT / "README.md": ("t2v recommend", ROOT / "docs" / "images" / "verdict.svg")}
"""Of a page, the command whose verdict is drawn the first time that it is there, and the file."""

NOTEBOOKS = {ROOT / "docs" / "tutorial.md"}


def with_outputs(page: Path) -> str:
    """The text of a page with what its blocks print; it runs in the working folder."""
    text = page.read_text(encoding="utf-8")
    session, lines = PageSession(page), text.splitlines(keepends=True)
    shown: list[tuple[Fence, str]] = []
    drawn = False
    for block in fences(text):
        if block.info in LANGUAGES:
            session.run(block)
            if page in PICTURES and not drawn and PICTURES[page][0] in block.code:
                drawn = True
                PICTURES[page][1].write_text(picture(session.printed), encoding="utf-8")
        elif block.info == OUTPUT:
            shown.append((block, as_shown(block, session.printed)))
    for block, output in reversed(shown):
        lines[block.line - 1 : block.line - 1 + block.code.count("\n")] = [output]
    return "".join(lines)


def as_shown(block: Fence, printed: str) -> str:
    """What was printed, with ``...`` for its middle or end where the block has that."""
    lines = [line.rstrip() for line in printed.splitlines()]
    kept = block.code.splitlines()
    if "..." in kept:
        head = kept.index("...")
        lines = [*lines[:head], "...", *lines[len(lines) - (len(kept) - head - 1) :]]
    return "".join(f"{line}\n" for line in lines)


def picture(printed: str) -> str:
    """The verdict in what was printed as an SVG, which needs no font of its own."""
    lines = printed[printed.index("Take ") :].partition("\n\n")[0].splitlines()
    styles = [' class="take"', *["" for _ in lines]]
    rows = "".join(
        f'<text x="20" y="{38 + 21 * row}"{style}>{escape(line)}</text>\n'
        for row, (line, style) in enumerate(zip(lines, styles, strict=False))
    )
    width, height = 40 + 8.5 * max(map(len, lines)), 38 + 21 * len(lines)
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height}" xml:space="preserve">
<style>
text {{ font: 14px ui-monospace, Menlo, Consolas, monospace; white-space: pre; fill: #d8dee9 }}
.take {{ font-weight: bold; fill: #88d8c0 }}
</style>
<rect width="100%" height="100%" rx="8" fill="#1d2530"/>
{rows}</svg>
"""


def notebook(text: str) -> str:
    """The page as a notebook: a cell for each block with what it printed, and one for the text between."""
    cells, place = [], 0
    blocks = [block for block in fences(text) if block.info in (*LANGUAGES, OUTPUT)]
    for block in blocks:
        fence = f"```{block.info}\n{block.code}```\n"
        start = text.index(fence, place)
        if prose := text[place:start].strip():
            cells.append({"cell_type": "markdown", "metadata": {}, "source": prose.splitlines(keepends=True)})
        place = start + len(fence)
        if block.info == OUTPUT:
            lines = block.code.splitlines(keepends=True)
            cells[-1]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": lines}]
            continue
        code = re.sub(r"(?m)^(t2v|pip)\b", r"!\1", block.code) if block.info == "bash" else block.code
        source = code.rstrip("\n").splitlines(keepends=True)
        count = 1 + sum(cell["cell_type"] == "code" for cell in cells)
        cells.append(
            {"cell_type": "code", "execution_count": count, "metadata": {}, "outputs": [], "source": source}
        )
    cells.append(
        {"cell_type": "markdown", "metadata": {}, "source": text[place:].strip().splitlines(keepends=True)}
    )
    cells = [{"id": f"cell-{number}", **cell} for number, cell in enumerate(cells)]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    document = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    """Run each page in a folder of its own."""
    for page in [Path(name).resolve() for name in sys.argv[1:]]:
        with tempfile.TemporaryDirectory() as folder:
            desk = Path(folder) / "desk"
            desk.mkdir()
            os.chdir(desk)
            os.environ |= {"T2V_REGISTRY": f"{folder}/.task2vec", "TORCH_HOME": f"{folder}/torch"}
            prepare(desk)
            text = with_outputs(page)
            os.chdir(ROOT)
        page.write_text(text, encoding="utf-8")
        if page in NOTEBOOKS:
            page.with_suffix(".ipynb").write_text(notebook(text), encoding="utf-8")
        print(f"Wrote {page.name}.")


if __name__ == "__main__":
    main()
