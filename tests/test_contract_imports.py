"""Who may import whom: the tables of docs/contributing.md, held against the syntax trees."""

import ast
from pathlib import Path

import pytest
from markdown_pages import ROOT, table

SOLE_IMPORTERS = {
    "lancedb": {"registry/store.py"},
    "faiss": {"registry/index.py"},
    "obstore": {"registry/object_places.py"},
    "indexer": {
        "registry/embedding_runs.py",
        "registry/expert_sources.py",
        "registry/ingest.py",
        "registry/trial_runs.py",
    },
    "matplotlib": {"registry/plot_images.py"},
    "plotly": {"registry/plot_page.py"},
    "torchvision": {"indexer/vision.py"},
    "ray": {"indexer/ray_engine.py"},
    "timm": {"indexer/hub.py"},
    "transformers": {"indexer/hub.py"},
    "datasets": {"indexer/hub_data.py"},
    "pandas": {"registry/frames.py"},
    "yaml": {"registry/model_cards.py"},
    "fastapi": {
        f"registry/web/{name}.py"
        for name in (
            "api",
            "api_experts",
            "api_jobs",
            "api_maps",
            "api_questions",
            "api_tasks",
            "app",
            "assets",
            "faults",
            "fresh",
            "login",
            "models",
            "models_jobs",
            "pages",
            "pages_compare",
            "pages_experts",
            "pages_jobs",
            "pages_map",
            "pages_tasks",
            "security",
            "templating",
            "uploads",
        )
    },
    "xxhash": {f"registry/{name}.py" for name in ("index_files", "records", "seals")},
    "click": {
        f"registry/{name}.py"
        for name in (
            "cli",
            "cli_care",
            "cli_completion",
            "cli_many",
            "cli_maps",
            "cli_options",
            "cli_questions",
            "cli_records",
            "cli_serve",
            "cli_tasks",
        )
    },
}
"""Libraries and packages that only these files of the two packages may import."""

ANYBODY = {"errors", "records"}
"""Modules of either package that every module of it may import; ``records`` itself imports ``errors`` only."""

ALLOWED = {
    "indexer": {
        "archives": "images listings tars webdatasets",
        "arrays": "listings",
        "bodies": "texts",
        "cells": "",
        "channels": "",
        "costs": "bodies filters gradients layer_rules probes square_grads weight_uses",
        "data_places": "archives hub_data",
        "data_specs": "archives arrays folders hub_data listings manifests",
        "datasets": "channels data_specs images labels listings sampling texts",
        "eight_bits": "",
        "embed": "bodies costs datasets features fisher heads probes scores",
        "engine_worker": "works",
        "engines": "process_engine ray_engine works",
        "feature_cache": "",
        "features": "probes texts",
        "filters": "",
        "fisher": "bodies heads likelihoods square_grads variational",
        "folders": "images listings",
        "gradients": "",
        "heads": "scores",
        "hub": "bodies loaders text_encoders texts vision weights",
        "hub_data": "listings",
        "images": "channels",
        "labels": "listings",
        "layer_rules": "filters gradients",
        "likelihoods": "heads",
        "listings": "",
        "loaders": "",
        "manifests": "cells listings tables text_manifests",
        "measure": "datasets features heads probes scores",
        "networks": "",
        "offline": "loaders packaged zoo",
        "own_networks": "bodies loaders",
        "packaged": "hub weights",
        "process_engine": "engine_worker works",
        "probes": "bodies hub loaders networks offline own_networks packaged texts vision weights",
        "ray_engine": "works",
        "sample_grads": "filters",
        "sampling": "listings",
        "scores": "",
        "shards": "costs data_specs datasets embed engines features fisher heads listings probes works",
        "square_grads": "filters gradients layer_rules sample_grads weight_uses",
        "tables": "",
        "tars": "",
        "text_encoders": "texts",
        "text_manifests": "cells listings tables",
        "texts": "",
        "trials": "datasets embed feature_cache features loaders probes",
        "variational": "bodies likelihoods",
        "vision": "",
        "webdatasets": "images listings tars",
        "weight_uses": "filters layer_rules sample_grads",
        "weights": "eight_bits",
        "works": "embed probes",
        "zoo": "hub loaders vision",
    },
    "registry": {
        "advice": "answers asking experts ingest limits neighbors options trial_costs trial_runs trials views",
        "answers": "frames",
        "asking": "ingest options views",
        "attributes": "",
        "audit": "",
        "blocks": "",
        "bundle_cards": "bundles schema",
        "bundle_contents": "bundle_reader bundles schema",
        "bundle_folders": "bundle_reader bundles commits",
        "bundle_reader": "bundles commits parquet_footers schema",
        "bundles": "audit commits schema",
        "catalogue": "database filters schema",
        "cautions": "",
        "cli": "cli_care cli_completion cli_many cli_maps cli_options cli_questions cli_records cli_serve "
        "cli_tasks core demo display_catalogues display_history distances documents ingest terminal",
        "cli_care": "cli_completion cli_options core documents options terminal",
        "cli_completion": "core distances",
        "cli_many": "cli_completion cli_options core display_many documents terminal",
        "cli_maps": "cli_completion cli_options core display_maps documents documents_maps pictures terminal",
        "cli_options": "cli_completion core",
        "cli_questions": "cli_completion cli_options core display display_maps documents ingest pictures "
        "terminal",
        "cli_records": "cli_completion cli_options core display documents terminal",
        "cli_serve": "cli_options core terminal web.serving web.settings",
        "cli_tasks": "cli_completion cli_options core display display_history documents terminal",
        "clusters": "map_answers",
        "commits": "",
        "core": "advice answers asking distances embedding_rows embedding_runs frames ingest many maps "
        "neighbors options snapshots starter store task_pages views",
        "creation": "commits database",
        "csv_files": "",
        "database": "commits places schema",
        "demo": "answers core display terminal",
        "display": "answers ingest terminal text_tables",
        "display_catalogues": "distances store terminal text_tables",
        "display_history": "answers terminal text_tables",
        "display_many": "answers many terminal text_tables",
        "display_maps": "map_answers terminal text_tables",
        "distances": "blocks task2vec_kernel",
        "documents": "answers cautions distances ingest",
        "documents_maps": "map_answers",
        "domain_vectors": "database schema stored_rows",
        "embedding_cache": "catalogue database embedding_rows index index_files neighbors schema",
        "embedding_rows": "distances index_files",
        "expert_sources": "csv_files ingest published",
        "embedding_runs": "ingest options",
        "experts": "answers csv_files expert_sources frames hub_experts ingest transfer",
        "exporting": "answers bundle_cards bundle_folders bundles database schema store stored_rows",
        "expert_covariance": "",
        "filters": "",
        "frames": "",
        "hub_experts": "ingest model_cards model_folders",
        "importing": "answers audit bundle_contents bundle_folders bundle_reader database merging options "
        "schema store",
        "index": "",
        "index_files": "index",
        "ingest": "answers cautions options",
        "landmarks": "distances embedding_rows index neighbors",
        "layout": "threads",
        "layouts": "embedding_rows landmarks layout map_files snapshots",
        "leases": "locks",
        "lifecycle": "answers frames store",
        "limits": "expert_sources",
        "locations": "object_places places",
        "locks": "",
        "many": "answers embedding_runs ingest lifecycle options task_manifests task_writer",
        "map_answers": "frames",
        "map_files": "",
        "map_making": "answers clusters distances ingest landmarks layout layouts map_answers map_files views",
        "maps": "asking clusters ingest landmarks layouts lifecycle map_answers map_files map_making options "
        "profiles snapshots store views",
        "merging": "bundle_contents options schema store",
        "model_cards": "",
        "model_folders": "",
        "moment_scores": "",
        "neighbors": "distances schema",
        "object_places": "leases locks places",
        "options": "",
        "palette": "",
        "parquet_footers": "",
        "pictures": "map_answers plot_html plot_images",
        "places": "locks seals",
        "plot_html": "map_answers plot_page plots",
        "plot_images": "map_answers palette plots",
        "plot_page": "palette plots",
        "plots": "distances map_answers palette",
        "prediction": "threads",
        "prior": "expert_covariance prediction result_table task_process threads",
        "prior_cache": "prior result_table task_process",
        "profiles": "distances map_answers",
        "published": "",
        "recommend": "answers neighbors prediction prior prior_cache result_table trials",
        "result_table": "answers",
        "sample_scores": "moment_scores",
        "schema": "",
        "seals": "",
        "snapshots": "catalogue domain_vectors embedding_cache embedding_rows store together",
        "starter": "store",
        "store": "answers creation database locations places schema stored_experts stored_tasks verify",
        "stored_embeddings": "database schema stored_rows",
        "stored_experts": "database schema stored_rows",
        "stored_rows": "audit database schema",
        "stored_tasks": "database filters schema stored_embeddings stored_rows",
        "task2vec_kernel": "",
        "task_manifests": "csv_files ingest",
        "task_pages": "frames ingest lifecycle snapshots views",
        "task_writer": "answers cautions embedding_runs ingest store task_manifests",
        "terminal": "",
        "text_tables": "terminal",
        "task_process": "threads",
        "threads": "",
        "together": "",
        "transfer": "answers bundle_cards exporting importing lifecycle options",
        "transferability": "moment_scores sample_scores threads",
        "trial_costs": "",
        "trial_evidence": "prediction",
        "trial_runs": "answers ingest options transferability trials",
        "trials": "answers prediction trial_costs trial_evidence",
        "verify": "attributes audit commits database places schema verify_index",
        "verify_index": "index_files",
        "views": "answers distances domain_vectors neighbors recommend schema snapshots trials",
        "web.api": "core documents web.faults web.fresh web.models web.security",
        "web.api_experts": "documents frames web.api web.models",
        "web.api_jobs": "web.api web.job_store web.jobs web.models web.models_jobs web.uploads",
        "web.api_maps": "core documents_maps web.api web.faults web.kept web.models web.models_maps",
        "web.api_questions": "core documents web.api web.models",
        "web.api_tasks": "core documents task_pages web.api web.models",
        "web.app": "core web.api_experts web.api_jobs web.api_maps web.api_questions web.api_tasks "
        "web.assets web.faults web.fresh web.jobs web.login web.pages web.security web.sessions "
        "web.settings web.uploads",
        "web.assets": "web.templating",
        "web.drawings": "",
        "web.faults": "terminal",
        "web.fresh": "",
        "web.job_files": "core web.faults web.job_store web.roots web.settings web.uploads",
        "web.job_process": "core documents ingest web.job_requests web.roots",
        "web.job_requests": "",
        "web.job_runs": "",
        "web.job_store": "web.faults",
        "web.jobs": "core web.faults web.job_files web.job_requests web.job_runs web.job_store web.settings "
        "web.uploads",
        "web.kept": "",
        "web.listings": "",
        "web.login": "web.faults web.pages web.security web.sessions",
        "web.models": "",
        "web.models_jobs": "web.models",
        "web.models_maps": "web.models",
        "web.multipart": "web.faults",
        "web.pages": "core web.kept web.pages_compare web.pages_experts web.pages_jobs web.pages_map "
        "web.pages_tasks web.templating",
        "web.pages_compare": "core distances map_answers web.kept web.pages_experts web.profile_drawing "
        "web.spaces web.templating",
        "web.pages_experts": "core web.kept web.listings web.templating",
        "web.pages_jobs": "web.drawings web.faults web.templating",
        "web.pages_map": "answers core map_answers web.kept web.spaces web.templating",
        "web.pages_tasks": "answers core filters ingest web.drawings web.kept web.listings web.pages_map "
        "web.spaces web.templating",
        "web.profile_drawing": "map_answers",
        "web.roots": "terminal",
        "web.security": "terminal web.faults web.sessions web.settings",
        "web.serving": "web.app web.jobs web.pages web.settings",
        "web.sessions": "",
        "web.settings": "",
        "web.spaces": "core",
        "web.templating": "display task_pages text_tables web.drawings web.listings",
        "web.uploads": "web.faults web.multipart web.settings web.zips",
        "web.zips": "ingest terminal web.faults web.settings",
    },
}
"""Module to the modules of its package that it imports, at any depth and under TYPE_CHECKING too."""


def modules(package: str) -> list[str]:
    return sorted(str(path.relative_to(ROOT)) for path in (ROOT / package).rglob("*.py"))


def imports(source: str) -> set[str]:
    """Full names of everything a source imports, at any depth and under TYPE_CHECKING too."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def module_name(path: str) -> str:
    """How the tables name a file: ``registry/core.py`` is ``core``, ``registry/web/app.py`` is ``web.app``."""
    return ".".join(Path(path).with_suffix("").parts[1:])


def siblings(package: str, source: str) -> set[str]:
    """Modules of the package that a source of it imports."""
    known = {module_name(path) for path in modules(package)}
    prefix = f"{package}."
    return {name.removeprefix(prefix) for name in imports(source) if name.startswith(prefix)} & known


def graph(package: str) -> dict[str, set[str]]:
    """Module to the modules of its package that it imports, but for the package itself."""
    return {
        module_name(path): siblings(package, (ROOT / path).read_text())
        for path in modules(package)
        if not path.endswith("__init__.py")
    }


def violations(path: str, source: str) -> list[str]:
    package = path.partition("/")[0]
    top = {name.partition(".")[0] for name in imports(source)}
    broken = [
        f"{path} imports {library}"
        for library, allowed in SOLE_IMPORTERS.items()
        if library in top and path not in allowed and library != package
    ]
    if package == "indexer" and "registry" in top:
        broken.append(f"{path} imports registry")
    if package == "registry" and "torch" in top:
        broken.append(f"{path} imports torch")
    return broken


@pytest.mark.parametrize("path", [*modules("indexer"), *modules("registry")])
def test_libraries_are_imported_where_they_may_be(path):
    assert violations(path, (ROOT / path).read_text()) == []


@pytest.mark.parametrize("package", ALLOWED)
def test_modules_import_exactly_what_the_table_says(package):
    found = graph(package)
    assert found.pop("errors") == set()
    assert found.pop("records") == {"errors"}
    expected = {module: set(names.split()) for module, names in ALLOWED[package].items()}
    assert {module: names - ANYBODY for module, names in found.items()} == expected


@pytest.mark.parametrize("package", ALLOWED)
def test_the_table_has_no_circle(package):
    left = {module: set(names.split()) for module, names in ALLOWED[package].items()}
    while free := [module for module, names in left.items() if not names & left.keys()]:
        for module in free:
            del left[module]
    assert left == {}


@pytest.mark.parametrize("package", ALLOWED)
def test_contributing_shows_the_table(package):
    page = (ROOT / "docs" / "contributing.md").read_text(encoding="utf-8")
    assert {row[0]: row[2] for row in table(page, f"Modules of {package}")} == ALLOWED[package]


def test_contributing_shows_who_imports_a_library():
    page = (ROOT / "docs" / "contributing.md").read_text(encoding="utf-8")
    shown = {row[0]: set(row[1].split(", ")) for row in table(page, "Libraries with one door")}
    assert shown == SOLE_IMPORTERS


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("indexer/embed.py", "import registry.core"),
        ("registry/core.py", "from indexer.embed import embed_dataset"),
        ("registry/views.py", "def f():\n    import faiss"),
        ("registry/ingest.py", "import torch"),
        ("indexer/probes.py", "from torchvision import models"),
        ("registry/creation.py", "import lancedb"),
    ],
)
def test_a_forbidden_import_is_noticed(path, source):
    assert len(violations(path, source)) == 1


@pytest.mark.parametrize(
    "source", ["from registry import core", "import registry.core", "def f():\n    from registry.core import x"]
)
def test_every_form_of_import_is_seen(source):
    assert siblings("registry", source) == {"core"}
