"""indexer.networks.loaders: texts that name networks, taken apart."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from indexer.errors import UnknownNameError
from indexer.networks.loaders import Loader, absolute_loader, parse_loader

PATHS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=30).filter(
    lambda path: not path.startswith("~")
)


@pytest.mark.parametrize(
    ("text", "source", "name", "file"),
    [
        ("resnet18.IMAGENET1K_V1", "named", "resnet18.IMAGENET1K_V1", None),
        ("resnet18@a.pt", "named", "resnet18", "a.pt"),
        ("resnet18.IMAGENET1K_V1@a.pt", "named", "resnet18.IMAGENET1K_V1", "a.pt"),
        (r"resnet18@C:\weights\a.pt", "named", "resnet18", r"C:\weights\a.pt"),
        ("resnet18@timm:a@b.pt", "named", "resnet18", "timm:a@b.pt"),
        ("timm:resnet18.a1_in1k", "timm", "resnet18.a1_in1k", None),
        (r"timm:resnet18@C:\weights\a@b.pt", "timm", "resnet18", r"C:\weights\a@b.pt"),
        ("hf:google/vit-base-patch16-224", "hf", "google/vit-base-patch16-224", None),
        ("hf:./folder@home", "hf", "./folder@home", None),
        (r"hf:C:\models\vit", "hf", r"C:\models\vit", None),
        ("my_package.my_module:build", "python", "my_package.my_module:build", None),
        ("module:_Class9", "python", "module:_Class9", None),
        ("torchscript:my@home.pt", "torchscript", "my@home.pt", "my@home.pt"),
        (r"torchscript:C:\my.pt", "torchscript", r"C:\my.pt", r"C:\my.pt"),
        (r"C:\weights\a.pt", "named", r"C:\weights\a.pt", None),  # no network has that name, which is then said
        ("timm:", "named", "timm:", None),
        ("", "named", "", None),
    ],
)
def test_loaders_are_taken_apart(text: str, source: str, name: str, file: str | None):
    assert parse_loader(text) == Loader(text, source, name, Path(file) if file else None)


def test_names_are_architecture_and_weights():
    assert [parse_loader(text).architecture for text in ("a.b.c", "a", "timm:a.b")] == ["a", "a", "a"]
    assert [parse_loader(text).weights for text in ("a.b.c", "a", "timm:a.b")] == ["b.c", "", "b"]


@pytest.mark.parametrize("text", ["keras:resnet50/imagenet", "https://host/weights.pt", "tim:resnet18.a1-in1k"])
def test_unknown_prefixes_are_answered_with_ours(text: str):
    prefix = text.partition(":")[0]
    with pytest.raises(UnknownNameError, match=f"^no kind of loader is named '{prefix}:'; .*timm:"):
        parse_loader(text)


@given(PATHS)
@hypothesis_settings(deadline=None, max_examples=60)
def test_any_path_survives(path: str):
    """A file's path may hold every mark that separates the parts of a loader."""
    assert parse_loader(f"resnet18@{path}").file == Path(path)
    assert parse_loader(f"timm:resnet18@{path}").file == Path(path)
    assert parse_loader(f"torchscript:{path}").file == Path(path)
    assert parse_loader(f"hf:{path}").name == path


@given(st.text(max_size=40))
@hypothesis_settings(deadline=None, max_examples=150)
def test_any_text_is_parsed_or_refused_in_one_line(text: str):
    try:
        loader = parse_loader(text)
    except UnknownNameError as err:
        message = str(err)
    else:
        message = ""
        assert loader.text == text
    assert "\n" not in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("resnet18.IMAGENET1K_V1", "resnet18.IMAGENET1K_V1"),
        ("resnet18@a.pt", "resnet18@{}/a.pt"),
        ("resnet18.IMAGENET1K_V1@b/../a.pt", "resnet18.IMAGENET1K_V1@{}/a.pt"),
        ("timm:resnet18", "timm:resnet18"),
        ("timm:resnet18.tag@a.pt", "timm:resnet18.tag@{}/a.pt"),
        ("torchscript:a.pt", "torchscript:{}/a.pt"),
        ("hf:./folder", "hf:{}/folder"),
        ("hf:org/there", "hf:{}/org/there"),
        ("hf:org/name", "hf:org/name"),
        ("module:build", "module:build"),
    ],
)
def test_loaders_become_independent_of_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, expected: str
):
    (tmp_path / "org" / "there").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    absolute = absolute_loader(text)
    assert absolute == expected.format(tmp_path.resolve())
    assert absolute_loader(absolute) == absolute


def test_home_folder_is_spelled_out(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    assert absolute_loader("hf:~/vit") == "hf:/home/somebody/vit"
    assert absolute_loader("torchscript:~/a.pt") == "torchscript:/home/somebody/a.pt"


def test_reasons_are_kept_when_errors_cross_processes():
    with pytest.raises(UnknownNameError, match=re.escape("did you mean timm:?")):
        parse_loader("timmm:vit/x")
