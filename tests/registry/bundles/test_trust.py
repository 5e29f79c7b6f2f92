"""What came from elsewhere is inert: no module is imported and no file opened before somebody trusts it."""

import json
import os
import sys

import numpy as np
import pytest
from builders import make_expert, make_result, make_true_space
from click.testing import CliRunner
from exportable import SETTINGS, SPACE0, add
from forgery import Forgery
from PIL import Image
from templates import starter

from indexer.data.samples import fingerprint_dataset
from indexer.records import EmbeddingSettings
from registry import TaskRegistry
from registry.cli.main import main
from registry.errors import (
    BundleError,
    InvalidQueryError,
    InvalidRecordError,
    NotFoundError,
    RegistryError,
    StorageError,
    UntrustedError,
)
from registry.ingest.data import names_only
from registry.storage.store import Store
from registry.web.jobs.process import run

CANARY = "canary_of_the_bundle"
LOADERS = [f"{CANARY}:build", "torchscript:evil.pt", "resnet18@evil.pth", "timm:resnet18@evil.pt", "hf:./evil"]
OTHERS = [f"other{number}" for number in range(1, len(LOADERS))]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working folder, with a module that leaves a trace, and a small dataset."""
    (tmp_path / f"{CANARY}.py").write_text(
        "from pathlib import Path\n\nimport torch\nfrom torch import nn\n\nPath('RAN').touch()\n\n\n"
        "def build():\n    torch.manual_seed(0)\n    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten())\n"
    )
    generator = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(6):
            pixels = generator.integers(0, 255, (16, 16, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, CANARY, raising=False)
    return tmp_path


def imported(folder, loader, *others):
    """A registry that imported a file whose only space and experts are loaded by texts; and one own task."""
    theirs = Store.create(folder / "theirs")
    theirs.add_space(make_true_space(probe_source=loader))
    experts = dict(zip(("vit.tiny", *OTHERS), (loader, *others), strict=False))
    theirs.add_experts([make_expert(name, loader=text) for name, text in experts.items()])
    add(theirs, "flowers")
    theirs.add_results([make_result(expert="vit.tiny")])
    TaskRegistry(theirs.uri).export(folder / "theirs.t2v")
    ours = TaskRegistry(folder / "ours", builtin=False)
    ours.import_bundle(folder / "theirs.t2v")
    data = str(folder / "data")
    fingerprint = fingerprint_dataset(data, EmbeddingSettings(max_samples=json.loads(SETTINGS)["max_samples"]))
    classes = {"num_classes": 2, "class_names": ("a", "b"), "num_samples": 12}
    add(Store(ours.uri), "mine", data=data, fingerprint=fingerprint, **classes)
    add(Store(ours.uri), "changed", data=data, fingerprint="of other data", **classes)
    Store(ours.uri).add_experts([make_expert("own.net", loader="resnet14w32.mnist")])
    return ours


def job(registry, kind, folder):
    command = {"uri": str(registry.uri), "builtin": False, "kind": kind, "options": {}}
    return run(command | {"path": str(folder / "data"), "vectors": str(folder / "v.npz")}, lambda *_: None)


@pytest.mark.parametrize(
    "loader", [LOADERS[0], *(pytest.param(it, marks=pytest.mark.slow) for it in LOADERS[1:])]
)
def test_no_question_and_no_job_opens_what_an_import_named(folder, loader):
    registry = imported(folder, loader, *(it for it in LOADERS if it != loader))
    assert registry.verify() == []
    for question in (
        lambda: registry.nearest("data"),
        lambda: registry.distance("data", "flowers"),
        lambda: registry.recommend("data"),
        lambda: registry.embed_in("data"),
        lambda: registry.map(["data"]),
        lambda: registry.profile("mine", "flowers"),
        *(lambda name=name: registry.measure("mine", name) for name in ("vit.tiny", *OTHERS)),
        lambda: registry.measure("changed", "own.net", as_new_version=True),
        lambda: registry.add_result("changed", "vit.tiny", accuracy=0.5, as_new_version=True),
        lambda: job(registry, "nearest", folder),
        lambda: job(registry, "recommend", folder),
    ):
        with pytest.raises(UntrustedError, match=r"came from .*theirs.t2v and would load .* `t2v trust "):
            question()
    answer = registry.recommend("mine", num_trials=1)
    assert any("not tried, as an import brought paths or code" in warning for warning in answer.warnings)
    assert "load_expert" not in answer.recommendations[0].load
    assert not (folder / "RAN").exists()
    assert CANARY not in sys.modules


def test_trust_allows_it_and_says_who_did(folder):
    registry = imported(folder, f"{CANARY}:build")
    with pytest.raises(NotFoundError, match="no imported expert, space or file is named 'nothing'"):
        registry.trust("nothing")
    (trusted,) = registry.trust("vit.tiny")
    assert (trusted.kind, trusted.name, trusted.file) == ("expert", "vit.tiny", str(folder / "theirs.t2v"))
    assert trusted.trusted_by
    with pytest.raises(RegistryError, match=rf"no module {CANARY} on Python's path"):
        registry.measure("mine", "vit.tiny")  # the working folder is that of no import
    assert not (folder / "RAN").exists()
    shown = CliRunner().invoke(main, ["--registry", str(registry.uri), "trust", "theirs.t2v"])
    assert (shown.exit_code, SPACE0 in shown.output) == (0, True)
    assert all(origin.trusted_at for origin in registry.origins())
    assert registry.audit("vit.tiny")[-1].action == "trust"


def test_what_you_register_is_yours_and_found_from_where_it_lay_alone(folder, monkeypatch):
    registry = imported(folder, "resnet14w32.mnist")
    Store(registry.uri).remove_expert("vit.tiny")
    registry.add_expert(f"{CANARY}:build", name="vit.tiny")
    assert registry.origins()[0].kind == "space"  # of the expert nothing is imported any more
    (folder / "RAN").unlink()
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / f"{CANARY}.py").write_text("raise SystemExit(77)\n")
    monkeypatch.chdir(elsewhere)
    monkeypatch.syspath_prepend("")
    monkeypatch.delitem(sys.modules, CANARY)
    assert registry.measure("mine", "vit.tiny", record=False).accuracy > 0
    assert sys.modules[CANARY].__file__ == str(folder / f"{CANARY}.py")


@pytest.mark.parametrize(
    ("loader", "is_one"),
    [
        ("resnet14w32.mnist", True),
        ("resnet18.IMAGENET1K_V1", True),
        ("timm:resnet18.a1_in1k", True),
        ("timm:hf-hub:evil/model", False),
        ("timm:local-dir:./evil", False),
        ("hf:evil/model", False),
        ("nonsense:x y", False),
        *((loader, False) for loader in LOADERS),
    ],
)
def test_names_are_told_from_paths_and_code(loader, is_one):
    assert names_only(loader) is is_one


def test_names_of_shipped_content_and_ids_of_spaces_are_not_believed(folder):
    registry = starter(folder / "team")
    registry.export("team.t2v")
    for table, column, message in (
        ("spaces", "probe_source", "has the name of shipped content and would load"),
        ("experts", "loader", "has the name of shipped content and would load"),
        ("spaces", "description", "is not what its description says, which makes"),
    ):
        forgery = Forgery.of(folder / "team.t2v")
        value = '{"probe":"x"}' if column == "description" else f"{CANARY}:build"
        forgery.set(table, column, [value] * len(forgery.table(table)))
        with pytest.raises(BundleError, match=message):
            TaskRegistry(folder / "victim").import_bundle(forgery.write(folder / "evil.t2v"))
    assert not (folder / "victim").exists()


@pytest.mark.parametrize("name", ["RESNET14W32.mnist", "Resnet14w32.MNIST"])
def test_names_of_shipped_experts_are_reserved_in_any_case(folder, name):
    store = Store.create(folder / "theirs")
    store.add_experts([make_expert(name, loader="resnet14w32.mnist"), make_expert("own.net", loader="own:net")])
    TaskRegistry(store.uri).export("theirs.t2v")
    with pytest.raises(BundleError, match=f"expert {name} has the name of shipped content"):
        TaskRegistry(folder / "victim").import_bundle("theirs.t2v")
    with pytest.raises(InvalidRecordError, match=f"{name} cannot be another name of own.net: it is"):
        TaskRegistry(store.uri).alias_expert("own.net", name)


def test_as_of_a_time_nothing_is_trusted_that_is_not_trusted_now(folder):
    registry = imported(folder, f"{CANARY}:build")
    before = registry.writes()[-1].number
    (folder / "elsewhere").mkdir()
    registry.trust("theirs.t2v")
    trusted = registry.writes()[-1].number

    def asks(past):
        with pytest.raises(RegistryError, match=CANARY) as refused:
            past.nearest("data")
        return type(refused.value)

    assert asks(registry.at(trusted)) is not UntrustedError  # it is looked for, where no import has it
    assert asks(registry.at(before)) is UntrustedError
    registry.undo()
    assert asks(registry) is asks(registry.at(trusted)) is UntrustedError
    registry.undo(redo=True)
    assert asks(registry) is not UntrustedError


def test_a_backup_from_elsewhere_is_inert_and_what_was_trusted_here_stays_so(folder):
    registry = imported(folder, f"{CANARY}:build")
    registry.trust("theirs.t2v")
    Store(registry.uri).add_experts([make_expert("named.net", loader="resnet14w32.mnist")])
    registry.backup("backup")
    restored = CliRunner().invoke(main, ["--registry", "elsewhere", "restore", "backup"])
    assert "are not used before `t2v trust backup`" in restored.stderr
    elsewhere = TaskRegistry(folder / "elsewhere", builtin=False)
    with pytest.raises(UntrustedError, match=rf"came from {folder / 'backup'} and would load {CANARY}"):
        elsewhere.nearest("data")
    assert "named.net" not in {origin.name for origin in elsewhere.origins()}
    assert {origin.name for origin in elsewhere.trust("backup")} >= {"vit.tiny", SPACE0}
    with pytest.raises(RegistryError, match="no module"):
        elsewhere.nearest("data")
    Store(registry.uri).add_experts([make_expert("later.net", loader="later:net")])
    registry.restore("backup", replace=True)
    assert all(origin.trusted_at for origin in registry.origins())


def test_names_of_shipped_experts_are_no_aliases_of_others(folder):
    store = Store.create(folder / "theirs")
    store.add_experts([make_expert("vit.tiny", loader="evil:build", aliases=("resnet14w32.mnist",))])
    TaskRegistry(store.uri).export("theirs.t2v")
    with pytest.raises(BundleError, match=r"expert resnet14w32.mnist has the name of shipped content"):
        TaskRegistry(folder / "victim").import_bundle("theirs.t2v")
    with pytest.raises(
        InvalidRecordError, match=r"resnet14w32.mnist cannot be another name of vit.tiny: it is"
    ):
        TaskRegistry(store.uri).alias_expert("vit.tiny", "resnet14w32.mnist")


def test_what_is_no_file_is_neither_waited_for_nor_read_without_end(folder):
    os.mkfifo("pipe")
    registry = TaskRegistry(folder / "victim")
    for name in ("pipe", "/dev/zero", "a\0b"):
        with pytest.raises(StorageError, match="the file cannot be read: "):
            registry.import_bundle(name)
    Store.create(folder / "theirs")
    TaskRegistry(folder / "theirs").export("theirs.t2v")
    (folder / "theirs.t2v.sig").write_text("{}")
    with pytest.raises(
        StorageError, match="pipe: the file cannot be read: that is a device, a pipe or a folder"
    ):
        registry.import_bundle("theirs.t2v", require_signature="pipe")


@pytest.fixture
def keys(folder):
    """Files of two keys, ``ours`` and ``other``."""
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    for name in ("ours", "other"):
        key = Ed25519PrivateKey.generate()
        pem = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
        (folder / f"{name}.pem").write_bytes(pem)
        public = key.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
        (folder / f"{name}.pub").write_bytes(public)


def test_signatures_hold_for_what_was_signed_alone(folder, keys):
    source = Store.create(folder / "source")
    source.add_space(make_true_space())
    add(source, "flowers")
    registry = TaskRegistry(source.uri)
    registry.export("a.t2v", sign="ours.pem")
    registry.export("b", format="folder", sign="ours.pem")
    for number, path in enumerate(("a.t2v", "b")):
        target = TaskRegistry(folder / f"target{number}")
        with pytest.raises(BundleError, match="is no signature of it by that key; nothing was imported"):
            target.import_bundle(path, require_signature="other.pub")
        assert target.import_bundle(path, require_signature="ours.pub").tasks == 1
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder / "b")
        assert target.import_bundle(".", require_signature="../ours.pub").tasks == 0  # is here already
    add(source, "birds")
    registry.export("a.t2v")  # the signature beside it is that of the former one
    with pytest.raises(BundleError, match=r"a.t2v.sig is no signature of it by that key"):
        TaskRegistry(folder / "new").import_bundle("a.t2v", require_signature="ours.pub")
    registry.export("plain.t2v")
    with pytest.raises(BundleError, match="is not signed: there is no"):
        TaskRegistry(folder / "new").import_bundle("plain.t2v", require_signature="ours.pub")
    with pytest.raises(InvalidQueryError, match="is no Ed25519 public key"):
        TaskRegistry(folder / "new").import_bundle("a.t2v", require_signature="a.t2v")
    assert not (folder / "new").exists()


def test_a_signature_replaces_no_device_or_pipe(folder, keys):
    Store.create(folder / "source")
    os.mkfifo("a.t2v.sig")
    with pytest.raises(StorageError, match=r"a.t2v.sig: the signature cannot be written: that is no file"):
        TaskRegistry(folder / "source").export("a.t2v", sign="ours.pem")
    assert not (folder / "a.t2v").exists()
    assert (folder / "a.t2v.sig").is_fifo()


def test_an_older_file_of_a_signer_is_refused_unless_it_is_meant(folder, keys):
    """What was signed of another registry, or by another key, is no older one of these."""
    source, target = Store.create(folder / "source"), TaskRegistry(folder / "target")
    source.add_space(make_true_space())
    registry = TaskRegistry(source.uri)
    for number, name in enumerate(("flowers", "birds")):
        add(source, name)
        registry.export(f"{number}.t2v", sign="ours.pem")
    registry.export("theirs.t2v", sign="other.pem")
    TaskRegistry(folder / "second").init(empty=True)
    TaskRegistry(folder / "second").export("second.t2v", sign="ours.pem")
    sooner = (folder / "0.t2v.sig").read_text()
    assert target.import_bundle("1.t2v", require_signature="ours.pub").tasks == 2
    assert target.import_bundle("1.t2v", require_signature="ours.pub").tasks == 0
    before = target.version()
    with pytest.raises(
        BundleError, match=r"0.t2v was signed at .*, before .* give allow_older=True to take an"
    ):
        target.import_bundle("0.t2v", require_signature="ours.pub")
    assert target.version() == before
    said = CliRunner().invoke(
        main, ["--registry", target.uri, "import", "0.t2v", "--require-signature", "ours.pub"]
    )
    assert (said.exit_code, "or give --allow-older to take" in said.stderr) == (1, True)
    target.import_bundle("0.t2v", require_signature="ours.pub", allow_older=True)
    with pytest.raises(BundleError, match="was signed at"):  # that it was meant once changes nothing
        target.import_bundle("0.t2v", require_signature="ours.pub")
    for path, key in (("second.t2v", "ours.pub"), ("theirs.t2v", "other.pub"), ("0.t2v", None)):
        target.import_bundle(path, require_signature=key)
    # The time is signed too.
    values = json.loads(sooner) | {"signed_at": "2999-01-01T00:00:00+00:00"}
    (folder / "0.t2v.sig").write_text(json.dumps(values))
    with pytest.raises(BundleError, match="is no signature of it"):
        target.import_bundle("0.t2v", require_signature="ours.pub")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("registry.bundles.signing.utc_now", lambda: "2999-01-01T00:00:00+00:00")
        registry.export("2.t2v", sign="ours.pem")
    with pytest.raises(BundleError, match="which is not yet: set the clocks right"):
        target.import_bundle("2.t2v", require_signature="ours.pub")
