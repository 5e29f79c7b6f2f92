"""What is uploaded is read as ``t2v task add`` reads the same bytes: the same samples, sentences and counts."""

import gzip
import io
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import make_expert
from layouts_of_tools import TOOLS
from web_servers import BEARER, serving
from web_zips import images, packed, picture

from indexer.data.samples import SurveyedDataset
from indexer.errors import DataError
from indexer.records import EmbeddingSettings
from registry.options import in_fields, spelled
from registry.storage.store import Store

ROWS = "".join(f"text {n},{'pn'[n % 2]}\n" for n in range(8))
PIXELS = np.random.default_rng(0).integers(0, 255, (8, 8, 8), np.uint8)


def masked() -> dict[str, bytes]:
    return {
        f"{name}/{kind}/{n}.png": picture(seed=n + 100 * len(name))
        for name in ("COVID", "Normal")
        for kind in ("images", "masks")
        for n in range(3)
    }


def tarred(files: dict[str, bytes], mode: str) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def arrays() -> bytes:
    file = io.BytesIO()
    np.savez(file, x_train=PIXELS, y_train=np.arange(8) % 2, x_test=PIXELS, y_test=np.arange(8) % 2)
    return file.getvalue()


def parquet() -> bytes:
    file = io.BytesIO()
    held = [{"bytes": picture(n), "path": None} for n in range(8)]
    pq.write_table(pa.table({"image": held, "label": list("abababab")}), file)
    return file.getvalue()


def layout(name: str) -> dict[str, bytes]:
    files = {}
    for path, content in TOOLS[name][0].items():
        if content is None:
            content = picture(seed=len(files), form="JPEG" if path.endswith("jpg") else "PNG")
        files[path] = content if isinstance(content, bytes) else str(content).encode()
    return files


CLASSES = images(count=4)
SIX = {f"train/{n}.png": picture(n) for n in range(6)}


def lines(form: str) -> str:
    return "".join(form.format(n=n, b=n % 2, c=1 - n % 2, pet=("pug", "boxer")[n % 2]) + "\n" for n in range(6))


SENT = {
    "masks.zip": lambda: packed(masked()),
    "roboflow.zip": lambda: packed(
        {**SIX, "train/_classes.csv": f"filename, a, b\n{lines('{n}.png, {b}, {c}')}".encode()}
    ),
    "table.zip": lambda: packed({**SIX, "labels.csv": f"id,breed\n{lines('{n},{pet}')}".encode()}),
    "metadata.zip": lambda: packed(
        {**SIX, "metadata.csv": f"file_name,label\n{lines('train/{n}.png,{pet}')}".encode()}
    ),
    "yolo.tar.gz": lambda: tarred({**images(top="train/"), **images(top="val/"), "a.yaml": b"nc: 2"}, "w:gz"),
    "shards.tar": lambda: tarred(
        {f"{n}.png": picture(n) for n in range(6)} | {f"{n}.cls": str(n % 2).encode() for n in range(6)}, "w"
    ),
    "coco.zip": lambda: packed(layout("COCO")),
    "keras.npz": arrays,
    "images.parquet": parquet,
    "texts.csv": lambda: f"text,label\n{ROWS}".encode(),
    "texts.csv.gz": lambda: gzip.compress(f"text;label\n{ROWS.replace(',', ';')}".encode()),
    "texts.json": lambda: json.dumps([{"text": f"text {n}", "label": "pn"[n % 2]} for n in range(8)]).encode(),
    "hidden.zip": lambda: packed({**CLASSES, "cats/.x": b"x", "cats/a.pdf": b"%PDF", "cats/b.png": b"<svg/>"}),
}  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory, embedded):
    folder = tmp_path_factory.mktemp("uploads")
    shutil.copytree(embedded, folder / "registry")
    with serving(folder / "registry", folder / "state", roots=(folder,)) as client:
        yield client


def sent(server, name, content):
    head = {**BEARER, "Content-Type": "application/octet-stream"}
    head["Content-Disposition"] = f'attachment; filename="{name}"'
    return server.post("/api/v1/uploads", content=content, headers=head)


@pytest.mark.parametrize("name", SENT)
def test_what_is_uploaded_is_read_as_from_the_disk(server, tmp_path, name):
    content = SENT[name]()
    (tmp_path / name).write_bytes(content)
    here = SurveyedDataset.open(str(tmp_path / name), EmbeddingSettings())
    for answer in (
        sent(server, name, content),
        server.post("/api/v1/uploads", files={"file": (name, content)}, headers=BEARER),
    ):
        assert answer.status_code == 201, answer.text
        upload = answer.json()
        assert upload["taken"] == spelled(list(here.listing.taken), in_fields)
        assert upload["passed_over"] == dict(here.listing.passed_over)
        assert list(upload["classes"].items()) == list(
            zip(here.listing.class_names, here.survey.sizes, strict=True)
        )
        assert (upload["kind"], upload["samples"]) == (here.listing.kind, here.survey.num_samples)
        folder = server.app.state.uploads.data(upload["upload"])
        there = SurveyedDataset.open(str(folder), EmbeddingSettings())
        assert there.survey.listing_hash == here.survey.listing_hash
        assert server.get(f"/api/v1/uploads/{upload['upload']}").json() == upload


def test_a_doubt_is_said_and_settled_by_an_option_of_the_job(server):
    files = {
        f"{domain}/{name}/{n}.png": picture(seed=n + 10 * position + 100 * len(domain))
        for domain in ("photo", "sketch")
        for position, name in enumerate(("dog", "horse", "house"))
        for n in range(2)
    }
    upload = sent(server, "pacs.zip", packed(files)).json()
    assert (upload["classes"], upload["kind"]) == ({}, None)
    assert '"class_level": 1 makes 2 classes' in upload["problem"]
    asked = {"kind": "nearest", "data": {"upload": upload["upload"]}, "options": {"k": 1, "class_level": 2}}
    job = server.post("/api/v1/jobs", json=asked, headers=BEARER).json()["id"]
    with server.stream("GET", f"/api/v1/jobs/{job}/events", timeout=120) as answer:
        "".join(answer.iter_text())
    done = server.get(f"/api/v1/jobs/{job}").json()
    assert done["state"] == "done", done
    assert done["result"]["embedding"]["class_names"] == ["dog", "horse", "house"]
    assert done["result"]["embedding"]["taken"] == ["folder level 2 as the class"]


@pytest.mark.parametrize(
    ("name", "content", "status", "part"),
    [
        ("a.tar.gz", gzip.compress(b"x" * 3000, mtime=0), 400, "no complete tar"),
        ("a.tar", b"x" * 3000, 400, "no complete tar"),
        ("a.pkl", b"\x80\x04N.", 400, "is no zip file, nor any other file of data that is taken"),
        ("a.xlsx", b"\0" * 30, 400, "is no zip file, nor any other"),
        ("a.parquet", b"PAR1" + bytes(30), 400, "is not a Parquet file"),
        ("a.npz", b"PK\x03\x04" + bytes(30), 400, "the file is damaged"),
        ("a.json", b"[" * 100_000, 400, "is no JSON"),
    ],
)
def test_what_is_no_data_is_refused_in_one_sentence(server, name, content, status, part):
    before = set(Path(server.app.state.uploads.folder).iterdir())
    answer = sent(server, name, content)
    assert (answer.status_code, part in answer.json()["error"]["message"]) == (status, True), answer.text
    assert set(Path(server.app.state.uploads.folder).iterdir()) == before


@pytest.mark.parametrize("way", ["{}/cat.png", "../upload.json", "../../../../secret/cat.png"])
@pytest.mark.parametrize("packing", ["a.csv", "a.zip", "images.zip"])
def test_a_table_names_no_file_of_the_server(server, tmp_path_factory, way, packing):
    secret = tmp_path_factory.getbasetemp() / "secret"
    secret.mkdir(exist_ok=True)
    (secret / "cat.png").write_bytes(picture(7))
    rows = f"path,label\n{way.format(secret)},a\n{way.format(secret)}?,b\n".encode()
    files = {"a.csv": rows} | ({"pictures/1.png": picture(1)} if packing == "images.zip" else {})
    answer = sent(server, packing, rows if packing == "a.csv" else packed(files))
    if answer.status_code == 201:
        assert "does not exist" in answer.json()["problem"] or "there is no image" in answer.json()["problem"]
        folder = str(server.app.state.uploads.data(answer.json()["upload"]))
        for how in ({"image_root": str(secret)}, {"image_root": "../../.."}, {"skip_bad": True}):
            with pytest.raises(DataError, match=r"does not exist|no such folder|no image|no row is left"):
                SurveyedDataset.open(folder, EmbeddingSettings(**how))
    else:
        assert "there is no image" in answer.json()["error"]["message"]


def test_results_are_imported_and_experts_get_aliases(server):
    registry, expert = server.app.state.registry, make_expert().name
    Store(registry.uri).add_experts([make_expert()])
    rows = f"task,expert,accuracy,protocol\nimages,{expert},0.91,fine_tuned\n".encode()

    def imported(**query):
        return server.post(
            "/api/v1/results/import", params=query, content=rows, headers={**BEARER, "Content-Type": "text/csv"}
        )

    tried = imported(dry_run=True).json()
    assert (tried["added"], len(tried["results"]), tried["problems"]) == (0, 1, [])
    assert imported().json()["added"] == 1
    again = imported().json()
    assert (again["added"], again["present"]) == (0, 1)
    refused = imported(metric="a=b")
    assert (refused.status_code, "rules are for what a tracker wrote" in refused.text) == (400, True)
    named = server.post(f"/api/v1/experts/{expert}/aliases", json={"alias": "lab/one"}, headers=BEARER)
    assert (named.status_code, "lab/one" in registry.expert(expert).aliases) == (201, True)
    assert server.delete(f"/api/v1/experts/{expert}/aliases/lab/one", headers=BEARER).status_code == 204
    assert "lab/one" not in registry.expert(expert).aliases
