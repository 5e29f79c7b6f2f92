"""Which weights are on this machine, by caches laid out as the libraries lay out theirs, and without torch."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from extras import skip_without
from markdown_pages import ROOT

from indexer.networks import offline
from indexer.networks.loaders import list_builtin
from indexer.networks.offline import hugging_face_cache, is_loadable_offline, torch_cache

RESNET18, RESNET18_FILE = "resnet18.IMAGENET1K_V1", "resnet18-f37072fd.pth"


@pytest.fixture(autouse=True)
def caches(tmp_path, monkeypatch):
    """Empty caches, and the working folder."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fetch_torch(name):
    path = torch_cache() / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"weights")


def fetch_hub(repository, file="model.safetensors", *, revision="abc", last="abc"):
    """As huggingface_hub: a file of a revision is a link to a blob, and ``refs`` says which is the last."""
    folder = hugging_face_cache() / f"models--{repository.replace('/', '--')}"
    for part in ("refs", "blobs", f"snapshots/{revision}"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / "refs" / "main").write_text(last)
    (folder / "blobs" / "1").write_bytes(b"weights")
    (folder / "snapshots" / revision / file).symlink_to("../../blobs/1")
    return folder


def test_builtin_weights_are_here():
    assert all(map(is_loadable_offline, list_builtin()))
    assert not is_loadable_offline("resnet14w32.nothing")


@pytest.mark.parametrize("form", ["resnet18@{}", "timm:resnet18@{}", "torchscript:{}"])
def test_a_file_is_here_if_it_is_there(caches, form):
    loader = form.format(caches / "a.pth")
    assert not is_loadable_offline(loader)
    (caches / "a.pth").touch()
    assert is_loadable_offline(loader)


def test_a_folder_is_here_if_it_is_there(caches):
    assert not is_loadable_offline("hf:./vit")
    (caches / "vit").mkdir()
    assert is_loadable_offline("hf:./vit")


@pytest.mark.parametrize("cached_as", [f"torch:{RESNET18_FILE}", ""], ids=["known", "looked-up"])
def test_weights_of_torchvision_are_here_once_they_were_fetched(cached_as):
    assert not is_loadable_offline(RESNET18, cached_as)
    fetch_torch("another.pth")
    assert not is_loadable_offline(RESNET18, cached_as)
    fetch_torch(RESNET18_FILE)
    assert is_loadable_offline(RESNET18, cached_as)
    assert not is_loadable_offline("resnet18.NONE")


@pytest.mark.parametrize("cached_as", ["hf:timm/resnet18.a1_in1k", ""], ids=["known", "looked-up"])
def test_weights_of_timm_are_here_once_they_were_fetched(cached_as):
    skip_without("timm")
    loader = "timm:resnet18.a1_in1k"
    assert not is_loadable_offline(loader, cached_as)
    fetch_hub("timm/resnet18.a2_in1k")
    assert not is_loadable_offline(loader, cached_as)
    fetch_hub("timm/resnet18.a1_in1k")
    assert is_loadable_offline(loader, cached_as)


def test_weights_of_timm_that_the_hub_lacks_are_files_of_torchs(caches):
    skip_without("timm")
    fetch_torch("legacy_senet154-e9eb9fe6.pth")
    assert is_loadable_offline("timm:legacy_senet154.in1k")


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_weights_of_hugging_face_are_here_once_they_were_fetched(file):
    skip_without("transformers")
    assert not is_loadable_offline("hf:google/vit")
    fetch_hub("google/vit", file)
    assert is_loadable_offline("hf:google/vit")
    assert not is_loadable_offline("hf:google/vit-large")


@pytest.mark.parametrize(
    "fault", ["config only", "no last revision", "another revision", "no blob", "not text"]
)
def test_a_fetch_that_was_cut_short_is_no_fetch(fault):
    skip_without("transformers")
    folder = fetch_hub(
        "google/vit",
        "config.json" if fault == "config only" else "model.safetensors",
        last="def" if fault == "another revision" else "abc",
    )
    if fault == "no last revision":
        (folder / "refs" / "main").unlink()
    if fault == "no blob":
        (folder / "blobs" / "1").unlink()
    if fault == "not text":
        (folder / "refs" / "main").write_bytes(b"\xff")
    assert not is_loadable_offline("hf:google/vit")


def test_without_its_library_nothing_of_it_can_be_loaded(caches, monkeypatch):
    (caches / "a.pth").touch()
    fetch_hub("google/vit")
    monkeypatch.setattr(offline, "find_spec", lambda name: None)
    assert not is_loadable_offline("timm:resnet18@a.pth")
    assert not is_loadable_offline("hf:google/vit")


@pytest.mark.parametrize(
    "loader",
    [
        "package.module:function",
        "what:is/this",
        "",
        "hf:gpt2",
        "resnet18@~nobody-of-this-name/a.pth",
        f"resnet18@{'a' * 5000}",
        "resnet18@a\0",
        "hf:google/\0",
    ],
    ids=range(8),
)
def test_what_cannot_be_is_not_here(loader):
    fetch_torch(RESNET18_FILE)
    fetch_hub("google/vit")
    assert not is_loadable_offline(loader)


ENVIRONMENTS = [
    {},
    {"TORCH_HOME": "~/elsewhere"},
    {"XDG_CACHE_HOME": "/tmp/cache"},
    {"XDG_CACHE_HOME": "/tmp/cache", "TORCH_HOME": "/tmp/torch", "HF_HOME": "/tmp/hf"},
    {"HF_HOME": "/tmp/hf", "HUGGINGFACE_HUB_CACHE": "/tmp/old"},
    {"HUGGINGFACE_HUB_CACHE": "/tmp/old", "HF_HUB_CACHE": "$HOME/hub"},
]
COMPARE_CACHES = """
import importlib, json, os, sys
from indexer.networks.offline import hugging_face_cache, torch_cache

def under(variables):
    os.environ.clear()
    os.environ.update({"HOME": sys.argv[1], "PATH": ""} | variables)
    return variables

environments = json.loads(sys.argv[2])
ours = [[str(torch_cache().parent), str(hugging_face_cache())] for _ in map(under, environments)]
assert "torch" not in sys.modules
import torch, huggingface_hub.constants as hub
theirs = [[torch.hub.get_dir(), importlib.reload(hub).HF_HUB_CACHE] for _ in map(under, environments)]
print(json.dumps([ours, theirs]))
"""


@pytest.mark.slow
def test_caches_are_where_the_libraries_have_them():
    """The hub reads the environment when it is imported, so all are asked in a fresh process."""
    command = [sys.executable, "-c", COMPARE_CACHES, str(Path.home()), json.dumps(ENVIRONMENTS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    ours, theirs = json.loads(done.stdout)
    assert ours == theirs
    assert len(set(map(tuple, ours))) > 4  # the environments differ
