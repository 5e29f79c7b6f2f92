"""No code comes out of data: what could run, unpack or be tricked is in none of our sources."""

import ast

from markdown_pages import ROOT

PICKLES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
"""Modules that build objects by running what a file says."""

FORBIDDEN = {
    "eval": "runs text",
    "exec": "runs text",
    "yaml.load": "builds any object; use yaml.safe_load",
    "yaml.unsafe_load": "builds any object; use yaml.safe_load",
    "tempfile.mktemp": "names a file that another may make first; use mkstemp",
    "os.system": "runs a shell",
    "os.popen": "runs a shell",
}
REQUIRED = {"torch.load": ("weights_only", True), "np.load": ("allow_pickle", False)}
"""Calls that build any object, unless a keyword says otherwise."""

UNPACKING = {"extractall", "extract", "unpack_archive"}
"""Methods that write where an archive says; pyarrow, numpy and our own have none of these names."""

ALIASES = {"numpy": "np"}
SOURCES = [
    path for folder in ("registry", "indexer", "scripts") for path in sorted((ROOT / folder).rglob("*.py"))
]


def names_of(tree: ast.AST) -> dict[str, str]:
    """What each imported name stands for, in full."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            tops = {alias.name.partition(".")[0] for alias in node.names if not alias.asname}
            names |= dict(zip(tops, tops, strict=True))
            names |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return names


def full_name(node: ast.expr, names: dict[str, str]) -> str:
    """The dotted name of what is called, with imports resolved and numpy as np."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    root = names.get(node.id, node.id) if isinstance(node, ast.Name) else "?"
    head, _, rest = root.partition(".")
    return ".".join([ALIASES.get(head, head), *([rest] if rest else []), *reversed(parts)])


def pickles(tree: ast.AST) -> list[str]:
    imported = {
        name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names])
    }
    return [f"imports {name}" for name in sorted(imported & PICKLES)]


def problem_of(call: ast.Call, names: dict[str, str]) -> str | None:
    name = full_name(call.func, names)
    given = {word.arg: getattr(word.value, "value", None) for word in call.keywords}
    if name.removeprefix("builtins.") in FORBIDDEN:
        return f"{name} {FORBIDDEN[name.removeprefix('builtins.')]}"
    if name in REQUIRED and given.get(REQUIRED[name][0]) is not REQUIRED[name][1]:
        return f"{name} without {REQUIRED[name][0]}={REQUIRED[name][1]}"
    if "shell" in given and given["shell"] is not False:
        return f"{name} runs a shell"
    if name.rpartition(".")[2] in UNPACKING:
        return f"{name} writes where an archive says"
    if given.get("allow_pickle") is True or given.get("trust_remote_code", False) is not False:
        return f"{name} runs what a file says"
    return None


def problems(source: str) -> list[str]:
    tree = ast.parse(source)
    names = names_of(tree)
    calls = (problem_of(node, names) for node in ast.walk(tree) if isinstance(node, ast.Call))
    return pickles(tree) + [problem for problem in calls if problem]


def test_all_sources_are_read():
    assert len(SOURCES) > 60


def test_no_source_runs_or_unpacks_what_a_file_says():
    by_source = {str(path.relative_to(ROOT)): problems(path.read_text(encoding="utf-8")) for path in SOURCES}
    assert {path: wrong for path, wrong in by_source.items() if wrong} == {}


def test_what_is_forbidden_is_noticed():
    sources = [
        *(f"import {name}" for name in sorted(PICKLES)),
        "def f():\n    from pickle import loads",
        "import joblib.externals",
        "import torch\ntorch.load(path)",
        "import torch\ntorch.load(path, weights_only=False)",
        "from torch import load\nload(path)",
        "import torch as t\nt.load(path, weights_only=flag)",
        "import numpy as np\nnp.load(path)",
        "import numpy\nnumpy.load(path, allow_pickle=True)",
        "from numpy import load as fetch\nfetch(path)",
        "from numpy.lib import format\nformat.read_array(file, allow_pickle=True)",
        "eval(text)",
        "import builtins\nbuiltins.exec(text)",
        "import yaml\nyaml.load(text)",
        "from yaml import unsafe_load\nunsafe_load(text)",
        "import subprocess\nsubprocess.run(text, shell=True)",
        "from subprocess import Popen\nPopen(text, shell=flag)",
        "import os\nos.system(text)",
        "import tempfile\ntempfile.mktemp()",
        "from tempfile import mktemp\nmktemp()",
        "import tarfile\ntarfile.open(path).extractall(folder)",
        "import zipfile\nzipfile.ZipFile(path).extract(name)",
        "import shutil\nshutil.unpack_archive(path)",
        "import transformers\ntransformers.AutoModel.from_pretrained(name, trust_remote_code=True)",
    ]
    assert [source for source in sources if len(problems(source)) != 1] == []


def test_what_is_allowed_is_not_noticed():
    sources = [
        "import torch\ntorch.load(path, map_location='cpu', weights_only=True)",
        "import numpy as np\nnp.load(path, allow_pickle=False)",
        "network.eval()",
        "table.merge_insert(keys).execute(rows)",
        "import tempfile\ntempfile.mkstemp()",
        "import subprocess\nsubprocess.run([program, name], check=True)",
        "import json\njson.load(file)",
    ]
    assert [source for source in sources if problems(source)] == []
