"""Model folders become experts and results, all or none, and again without change."""

import re

import pytest
from builders import make_expert
from builders_models import CARD, NUM_PARAMS, write_model
from command_lines import answer, make_small_registry, ok, t2v
from extras import skip_without

from registry import TaskRegistry
from registry.answers import ImportedExperts
from registry.errors import InvalidQueryError, InvalidRecordError
from registry.experts.hub import PROTOCOL


@pytest.fixture
def registry(tmp_path):
    """One with the tasks flowers and trees, and others."""
    return TaskRegistry(make_small_registry(tmp_path / "registry"))


def results_of(registry, expert):
    return [(it.task, it.metric, it.accuracy, it.protocol, it.source) for it in registry.results(expert=expert)]


def test_a_card_becomes_an_expert_and_results(registry, tmp_path):
    folder = write_model(tmp_path / "models" / "acme" / "vit")
    imported = registry.import_experts("hf", from_dir=tmp_path / "models")
    assert imported == ImportedExperts(str(tmp_path / "models"), 1, 0, 0, results=2)
    expert = registry.expert("acme.vit")
    assert (expert.loader, expert.source_task, expert.license) == (f"hf:{folder}", "pets", "apache-2.0")
    assert (expert.num_params, expert.input_size, expert.source_accuracy) == (NUM_PARAMS, 24, 0.935)
    source = "model card of acme.vit: flowers, validation"
    assert results_of(registry, "acme.vit") == [
        ("flowers", "accuracy", 0.75, PROTOCOL, source),
        ("flowers", "f1", 0.5, PROTOCOL, source),
    ]
    told = next(line.values for line in registry.audit() if line.subject == "acme.vit")
    assert (told["source"], told["base_model"], told["tags"]) == ("hf", ["acme/vit-large"], ["vision", "vit"])


def test_importing_again_writes_only_what_changed(registry, tmp_path):
    folder = write_model(tmp_path / "vit")
    registry.import_experts("hf", from_dir=folder)
    before = registry.audit()
    assert registry.import_experts("hf", from_dir=folder) == ImportedExperts(str(folder), 0, 0, 1)
    assert registry.audit() == before
    (folder / "README.md").write_text(CARD.replace("apache-2.0", "mit").replace("0.75", "0.8"))
    assert registry.import_experts("hf", from_dir=folder) == ImportedExperts(str(folder), 0, 1, 0, results=1)
    assert registry.expert("vit").license == "mit"
    assert [it[2] for it in results_of(registry, "vit") if it[1] == "accuracy"] == [0.75, 0.8]


def test_results_are_kept_of_registered_tasks_alone(registry, tmp_path):
    card = CARD.replace("type: flowers, config: default, split: validation", "type: flowers, split: train")
    card = card.replace("name: Pets, type: acme/pets", "name: SST, type: sst2")
    folder = write_model(tmp_path / "vit", card)
    imported = registry.import_experts("hf", from_dir=folder)
    place = folder / "README.md"
    assert imported.results == 0
    assert imported.notes == (
        f"{place}: 2 results are not stored: on flowers, measured on training samples",
        f"{place}: 1 result is not stored: on sst2, where no one task is registered under that name",
    )


def test_tasks_that_are_written_alike_stand_for_neither(tmp_path):
    from builders import make_embedding, make_space, make_task

    from registry.storage.store import Store

    store = Store.create(tmp_path / "registry", lambda new: new.add_space(make_space()))
    for name in ("Flow-ers", "flow_ers"):
        store.add_task(make_task(name), "space0", make_embedding(name))
    folder = write_model(tmp_path / "vit")
    imported = TaskRegistry(store.uri).import_experts("hf", from_dir=folder)
    assert imported.results == 0
    assert "no one task is registered under that name" in imported.notes[0]


@pytest.mark.parametrize(
    ("datasets", "expected"),
    [
        ("[acme/Trees, flowers]", "trees"),  # a registered one, under its name
        ("[ILSVRC/imagenet-1k, imagenet-21k]", "imagenet1k"),  # as torchvision and timm say it
        ("acme/other-pets", "other-pets"),
        ("['acme/a b']", ""),
    ],
)
def test_the_source_task_is_the_dataset(registry, tmp_path, datasets, expected):
    folder = write_model(tmp_path / "vit", f"---\ndatasets: {datasets}\n---\n")
    imported = registry.import_experts("hf", from_dir=folder)
    assert registry.expert("vit").source_task == expected
    assert len(imported.notes) == (not expected)


def test_all_or_none_unless_bad_ones_are_skipped(registry, tmp_path):
    root = tmp_path / "models"
    write_model(root / "good", None)
    write_model(root / "not a name")
    write_model(
        root / "speech", CARD.replace("image-classification\ntags", "automatic-speech-recognition\ntags")
    )
    write_model(root / "torn", CARD.replace("license:", "license: ["))
    (write_model(root / "bare") / "model.safetensors").unlink()
    before = registry.experts()
    with pytest.raises(
        InvalidRecordError, match=r"/bare: .*; .*/not a name: .*; .*/speech: .*; .*/torn/README"
    ):
        registry.import_experts("hf", from_dir=root)
    assert registry.experts() == before
    done = registry.import_experts("hf", from_dir=root, skip_bad=True)
    assert done.added == 1
    bad = [
        rf"{root}/bare: there is no file model.safetensors",
        rf"{root}/not a name: 'not a name' cannot name an expert",
        rf"{root}/speech: its card says 'automatic-speech-recognition'; expected a model of images or texts",
        rf"{root}/torn/README.md, line 3: the head of the model card is not YAML",
        rf"{root}/good/README.md: there is no model card, so licence, datasets and results are not known",
    ]
    assert [note[: len(start)] for note, start in zip(done.notes, bad, strict=True)] == bad


def test_a_name_of_another_network_is_refused(registry, tmp_path):
    registry._store.add_experts([make_expert("vit")])
    folder = write_model(tmp_path / "vit")
    message = "expert vit is registered already, loaded as vit; remove it first or rename the folder"
    with pytest.raises(InvalidRecordError, match=rf"^{re.escape(message)}$"):
        registry.import_experts("hf", from_dir=folder)
    assert registry.import_experts("hf", from_dir=folder, skip_bad=True).notes == (message,)
    assert registry.expert("vit").loader == "vit"


def test_nothing_is_made_for_a_folder_that_is_bad(tmp_path):
    folder = write_model(tmp_path / "vit")
    (folder / "config.json").unlink()
    with pytest.raises(InvalidRecordError, match="there is no file config"):
        TaskRegistry(tmp_path / "registry").import_experts("hf", from_dir=folder)
    assert not (tmp_path / "registry").exists()


@pytest.mark.parametrize("options", [{}, {"skip_bad": True}])
def test_a_folder_belongs_to_its_source(tmp_path, options):
    registry = TaskRegistry(tmp_path / "registry")
    for source, folder in (("hf", None), ("timm", tmp_path)):
        with pytest.raises(InvalidQueryError, match=r"^source hf needs a folder \(from_dir='DIR'\)"):
            registry.import_experts(source, from_dir=folder, **options)


def test_the_command_says_what_was_done(tmp_path):
    uri = make_small_registry(tmp_path / "registry")
    root = tmp_path / "models"
    write_model(root / "vit")
    write_model(root / "bert", None, processor=None)
    done = ok(uri, "expert", "import", "hf", "--from-dir", root)
    assert "Added 2 experts.\nAdded 2 results of model cards.\nWarning: " in done.stderr
    assert answer(uri, "expert", "show", "bert")["loader"] == f"hf:{root}/bert?pooling=mean"
    again = answer(uri, "expert", "import", "hf", "--from-dir", root)
    assert (again["added"], again["unchanged"], again["results"], len(again["notes"])) == (0, 2, 0, 1)
    (root / "vit" / "README.md").write_text("---\n\x1b]0;x: [\n---")
    failed = t2v(uri, "expert", "import", "hf", "--from-dir", root)
    assert failed.exit_code == 1
    assert failed.stderr.startswith("Error: ")
    assert "\x1b" not in failed.output


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["vit", "bert"])
def test_what_is_imported_is_what_the_loader_finds(tmp_path, kind, encoder):
    """Counted by heads of files, and by loading."""
    skip_without("transformers")
    from builders_texts import load_transformers

    folder = encoder
    if kind == "vit":
        transformers, folder = load_transformers(), tmp_path / "vit"
        sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
        config = transformers.ViTConfig(**sizes, image_size=32, patch_size=8)
        transformers.ViTForImageClassification(config).save_pretrained(folder)
        transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    registry = TaskRegistry(tmp_path / "registry")
    registry.init(empty=True)
    registry.import_experts("hf", from_dir=folder)
    imported = registry.expert(folder.name)
    loaded = registry.add_expert(imported.loader, name="loaded")
    assert (imported.num_params, imported.input_size) == (loaded.num_params, loaded.input_size)
    assert imported.loader.partition("?")[0] == loaded.loader.partition("?")[0]
