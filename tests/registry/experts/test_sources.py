"""Experts of libraries and files become registered experts: what is new, what changes, what stays."""

import json
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest
from builders import make_expert
from command_lines import answer, ok, t2v
from extras import skip_without
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_pages import ROOT

from registry import TaskRegistry
from registry.answers import ImportedExperts
from registry.errors import DuplicateError, IngestError, InvalidRecordError
from registry.experts.sources import LIBRARIES, is_library, merge, read_source

BARE = make_expert("a.x", num_params=None, flops=None, input_size=None, license="")
FULL = make_expert("a.x", source_task="imagenet1k", source_accuracy=0.5, cached_as="torch:a.pth")


@pytest.fixture
def registry(tmp_path):
    registry = TaskRegistry(tmp_path / "registry")
    registry.init(empty=True)
    return registry


def actions(registry):
    return Counter((line.action, line.values.get("source")) for line in registry.audit())


# What becomes of one expert


@pytest.mark.parametrize("library", [True, False], ids=["library", "file"])
@pytest.mark.parametrize(
    ("found", "known", "expected"),
    [
        (FULL, None, "new"),
        (FULL, FULL, "same"),
        (BARE, FULL, "same"),
        (replace(FULL, created_at="2030-01-01T00:00:00+00:00", builtin=True), FULL, "same"),
        (FULL, BARE, FULL),
        (replace(FULL, source_accuracy=0.0), FULL, replace(FULL, source_accuracy=0.0)),
        (replace(BARE, num_params=7), FULL, replace(FULL, num_params=7)),
        (replace(BARE, license="mit"), replace(FULL, builtin=True), replace(FULL, license="mit", builtin=True)),
    ],
    ids=["new", "same", "says-nothing", "registered-later", "all", "accuracy-0", "size", "builtin"],
)
def test_what_a_source_says_goes_before_what_is_known(found, known, expected, library):
    merged = merge([found], {known.name: known} if known else {}, set(), library=library)
    assert merged.new == ([found] if expected == "new" else [])
    assert merged.changed == ([] if isinstance(expected, str) else [expected])
    assert (merged.unchanged, merged.left) == (int(expected == "same"), ())


def test_a_library_leaves_what_was_removed_and_names_of_other_networks():
    other = replace(FULL, loader="resnet18@/a.pth")
    gone = make_expert("gone.x")
    merged = merge([FULL, gone], {"a.x": other}, {"gone.x"}, library=True)
    assert (merged.new, merged.changed, merged.unchanged, merged.left) == ([], [], 0, ("a.x", "gone.x"))


def test_a_row_of_a_file_may_leave_the_loader_out_and_bring_back_a_name():
    known = replace(FULL, loader="resnet18@/a.pth")
    gone = make_expert("gone.x")
    row = replace(BARE, loader="a.x", license="mit")  # of a row without a loader, the name
    merged = merge([row, gone], {"a.x": known}, {"gone.x"}, library=False)
    assert (merged.new, merged.changed) == ([gone], [replace(known, license="mit")])


def test_a_row_of_a_file_with_another_loader_is_refused():
    message = "expert a.x is registered already, loaded as a.x; remove it first or choose another name"
    with pytest.raises(DuplicateError, match=f"^{re.escape(message)}$"):
        merge([replace(FULL, loader="resnet18@/a.pth")], {"a.x": FULL}, set(), library=False)


NUMBERS = st.none() | st.integers(1, 3)
EXPERTS = st.lists(
    st.builds(
        make_expert,
        st.sampled_from(["a.x", "b.x", "c.x", "d.x"]),
        num_params=NUMBERS,
        input_size=NUMBERS,
        license=st.sampled_from(["", "mit"]),
        source_accuracy=st.sampled_from([None, 0.0, 0.5]),
    ),
    unique_by=lambda expert: expert.name,
)


@settings(deadline=None)
@given(EXPERTS, EXPERTS, st.booleans())
def test_merging_again_changes_nothing(found, present, library):
    known = {expert.name: expert for expert in present}
    merged = merge(found, known, set(), library=library)
    assert len(merged.new) + len(merged.changed) + merged.unchanged + len(merged.left) == len(found)
    after = known | {expert.name: expert for expert in (*merged.new, *merged.changed)}
    again = merge(found, after, set(), library=library)
    assert (again.new, again.changed, again.unchanged) == ([], [], len(found))


# A registry


@pytest.mark.parametrize(("library", "least"), [("torchvision", 100), ("timm", 1000)])
def test_a_library_is_imported_once(registry, library, least):
    skip_without(library)
    imported = registry.import_experts(library)
    experts = registry.experts()
    assert imported == ImportedExperts(library, len(experts), 0, 0)
    assert len(experts) > least
    assert actions(registry) == {("expert.add", library): len(experts)}
    assert registry.import_experts(library) == ImportedExperts(library, 0, 0, len(experts))
    assert registry.experts() == experts
    assert len(registry.audit()) == len(experts)
    assert registry.verify() == []  # datasets of the field, such as imagenet1k, need not be tasks
    assert {it.name for it in experts if it.toy} == {it.name for it in experts if it.name.startswith("test_")}


def test_an_import_gives_what_was_lacking_and_touches_no_more(registry, tmp_path):
    """One has a licence that torchvision does not name, one another loader, one was removed."""
    path = tmp_path / "experts.csv"
    path.write_text(
        "expert,loader,license,num_params\nresnet18.IMAGENET1K_V1,,mit,5\n"
        "resnet34.IMAGENET1K_V1,resnet34@/mine.pth,,\nvgg11.IMAGENET1K_V1,,,\n"
    )
    assert registry.import_experts(path) == ImportedExperts(str(path), 3, 0, 0)
    registry.remove_expert("vgg11.IMAGENET1K_V1")
    before = registry.expert("resnet34.IMAGENET1K_V1")
    imported = registry.import_experts("torchvision")
    assert (imported.updated, imported.unchanged) == (1, 0)
    assert imported.left == ("resnet34.IMAGENET1K_V1", "vgg11.IMAGENET1K_V1")
    first = registry.expert("resnet18.IMAGENET1K_V1")
    assert (first.license, first.num_params, first.source_accuracy) == ("mit", 11_689_512, 0.69758)
    assert registry.expert("resnet34.IMAGENET1K_V1") == before
    assert "vgg11.IMAGENET1K_V1" not in {expert.name for expert in registry.experts()}
    assert actions(registry)["expert.update", "torchvision"] == 1
    assert registry.import_experts("torchvision").updated == 0
    again = registry.import_experts(path)
    assert (again.added, again.updated) == (
        1,
        1,
    )  # as the file says: five parameters, and the one that was removed


def test_a_file_is_imported_all_or_none(registry, tmp_path):
    registry.import_experts("torchvision")
    before, path = registry.experts(), tmp_path / "experts.csv"
    path.write_text("expert,loader\nnew.x,\nresnet18.IMAGENET1K_V1,resnet18@/mine.pth\n")
    with pytest.raises(
        DuplicateError, match=r"^expert resnet18\.IMAGENET1K_V1 is registered already, loaded as"
    ):
        registry.import_experts(path)
    assert registry.experts() == before


def test_an_import_makes_a_registry_only_if_it_can_be_read(tmp_path):
    registry = TaskRegistry(tmp_path / "new")
    with pytest.raises(
        InvalidRecordError, match=r"none\.csv: cannot be read as CSV: no such file or directory$"
    ):
        registry.import_experts("none.csv")
    assert not (tmp_path / "new").exists()
    assert registry.import_experts("torchvision").added > 100
    assert any(expert.builtin for expert in registry.experts())


def test_without_timm_nothing_of_it_is_imported(registry, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(
        IngestError, match=r"^timm cannot be imported \(.*\); install task2vec-registry\[hub\]$"
    ):
        registry.import_experts("timm")
    assert registry.experts() == []


def test_libraries_are_those_of_the_indexer_and_a_path_is_none():
    from indexer.networks.zoo import ZOOS

    assert sorted(ZOOS) == list(LIBRARIES)
    assert [is_library(source) for source in ("timm", "./timm", "timm.csv")] == [True, False, False]


def test_an_expert_that_is_added_is_known_by_its_name_in_the_cache(registry):
    assert registry.add_expert("resnet14w32.mnist", source_accuracy=0.99).cached_as == ""
    assert registry.expert("resnet14w32.mnist").source_accuracy == 0.99


# The command line


def test_expert_import_says_how_many_are_new(registry):
    folder, count = registry.uri, len(read_source("torchvision"))
    assert ok(folder, "expert", "import", "torchvision").stderr == f"Added {count} experts.\n"
    again = answer(folder, "expert", "import", "torchvision")
    counts = {"added": 0, "updated": 0, "unchanged": count, "left": [], "results": 0, "notes": []}
    assert again == {"source": "torchvision", **counts}
    for name in ("alexnet", "vgg11", "vgg13", "vgg16", "vgg19", "googlenet"):
        registry.remove_expert(f"{name}.IMAGENET1K_V1", purge=name == "vgg19")
    assert ok(folder, "expert", "import", "torchvision").stderr == (
        f"Added 1 expert; {count - 6} were registered already.\n"
        "Left alone, as removed here or the name of another network: alexnet.IMAGENET1K_V1, "
        "googlenet.IMAGENET1K_V1, vgg11.IMAGENET1K_V1, vgg13.IMAGENET1K_V1, vgg16.IMAGENET1K_V1; "
        "`t2v expert restore NAME` brings back what was removed.\n"
    )
    shown = ok(folder, "expert", "show", "resnet50.IMAGENET1K_V2").stdout
    assert "accuracy there\t0.809\n" in shown
    assert re.search(
        r"resnet50\.IMAGENET1K_V2\timagenet1k\t0\.809\t25\.6M\t4\.09G\t224\t-",
        ok(folder, "expert", "list").stdout,
    )


def test_a_source_that_is_none_is_one_sentence(registry):
    done = t2v(registry.uri, "expert", "import", "torchvison")
    message = "no library or CSV file is named 'torchvison'; did you mean torchvision?"
    assert (done.exit_code, done.stdout, done.stderr) == (1, "", f"Error: {message}\n")


def test_questions_about_imported_experts_load_no_torch(tmp_path, registry):
    """Those that were imported; with caches that hold something."""
    registry.import_experts("torchvision")
    code = (
        "import json, sys; from registry import TaskRegistry; from registry.experts.limits import Limits; "
        f"experts = TaskRegistry({registry.uri!r}).experts(); "
        "found = [e.name for e in Limits(loadable_offline=True, max_params=3e7).within(experts)[0]]; "
        "print(json.dumps([found, 'torch' in sys.modules]))"
    )
    cache = tmp_path / "torch" / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    (cache / "resnet18-f37072fd.pth").touch()
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={"TORCH_HOME": str(tmp_path / "torch"), "HOME": str(tmp_path)},
    )
    assert json.loads(done.stdout) == [["resnet18.IMAGENET1K_V1"], False]
