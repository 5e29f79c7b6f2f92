"""Uploads and paths that nobody means well by: each is refused in one sentence, and nothing is left of it."""

import io
import os
import stat
import struct
import zipfile
from pathlib import Path

import pytest
from web_servers import BEARER, serving, small_limits
from web_zips import (
    encrypted,
    good,
    huge_picture,
    images,
    overlapping,
    packed,
    patched_directory,
    picture,
    renamed,
    tiled,
    too_many_names,
    with_entry,
    zip64_lie,
)

from registry.errors import InvalidQueryError
from registry.web.jobs.process import run

LINK = (stat.S_IFLNK | 0o777) << 16
DEVICE = (stat.S_IFCHR | 0o666) << 16
PIPE = (stat.S_IFIFO | 0o666) << 16

ZIPS = {
    "leads up": (lambda: with_entry("../evil.png"), 400, "leads out of the zip"),
    "leads up inside": (lambda: with_entry("cats/../../evil.png"), 400, "leads out of the zip"),
    "absolute": (lambda: with_entry("/etc/evil.png"), 400, "is absolute"),
    "backslashes": (lambda: renamed("a_b_c.png", "..\\..\\x.p"), 400, "holds a backslash"),
    "drive letter": (lambda: with_entry("C:/evil/x.png"), 400, "is absolute"),
    "nul in the name": (lambda: renamed("abc.png", "a\0c.png"), 400, "cannot be printed"),
    "escape in the name": (lambda: renamed("abc.png", "a\x1bc.png"), 400, "cannot be printed"),
    "text turned around": (lambda: with_entry("cats/\u202egnp.exe.png"), 400, "cannot be printed"),
    "empty part": (lambda: with_entry("cats//x.png"), 400, "is empty in part"),
    "dot part": (lambda: with_entry("cats/./x.png"), 400, "is empty in part"),
    "endless name": (lambda: with_entry(f"cats/{'x' * 300}.png"), 400, "longer than 255 bytes"),
    "symbolic link": (lambda: with_entry("cats/l.png", b"/etc/passwd", external_attr=LINK), 400, "is a link"),
    "device": (lambda: with_entry("cats/d.png", b"", external_attr=DEVICE), 400, "neither a file nor a folder"),
    "pipe": (lambda: with_entry("cats/p.png", b"", external_attr=PIPE), 400, "neither a file nor a folder"),
    "same name twice": (lambda: renamed("1.pnh", "1.png"), 400, "in the zip twice"),
    "case collides": (lambda: with_entry("CATS/1.png"), 400, "differs from another name only by case"),
    "encrypted": (encrypted, 400, "is encrypted"),
    "unusual packing": (lambda: packed(images(), zipfile.ZIP_LZMA), 400, "packed in an unusual way"),
    "bomb of one entry": (
        lambda: packed({**images(), "cats/b.bmp": bytes(2_000_000)}),
        413,
        "unpacks to more than 100 times",
    ),
    "bomb of many entries": (
        lambda: packed({**images(), **{f"cats/b{number}.bmp": tiled(number) for number in range(12)}}),
        413,
        "larger than 1,048,576 bytes",
    ),
    "overlapping bomb": (overlapping, 413, "overlap"),
    "size that lies low": (
        lambda: patched_directory(good(), 24, struct.pack("<I", 100)),
        400,
        "damaged or cut off",
    ),
    "size that lies high": (
        lambda: patched_directory(good(), 24, struct.pack("<I", 30_000)),
        400,
        "damaged or cut off",
    ),
    "checksum that lies": (lambda: patched_directory(good(), 16, b"\1\2\3\4"), 400, "damaged or cut off"),
    "zip64 that lies": (zip64_lie, 413, "unpacks to more than"),
    "offset that lies": (lambda: patched_directory(good(), 42, b"\xff\xff\xff\x7f"), 413, "overlap"),
    "too many files": (lambda: too_many_names(51), 413, "more than 50 files"),
    "too many names": (lambda: too_many_names(400), 413, "more than 50 files"),
    "a file that is a folder": (lambda: packed({**images(), "cats": b"x"}), 400, "is a file and a folder"),
    "a pickle": (lambda: packed({"a/x.pkl": b"\x80\x04N."}), 400, "is a Python pickle, which could run code"),
    "too many pixels": (lambda: with_entry("cats/x.png", picture(5, (400, 300))), 413, "has 120,000 pixels"),
    "pixels announced": (lambda: with_entry("cats/x.png", huge_picture()), 413, "at most 100,000 are taken"),
    "one class": (lambda: packed(images(("cats",))), 400, "has only the class 'cats'"),
    "no class folder": (
        lambda: packed({"1.png": picture(1), "2.png": picture(2)}),
        400,
        "holds no class folders",
    ),
    "empty zip": (lambda: packed({}), 400, "holds no files"),
    "only hidden files": (lambda: packed({"__MACOSX/cats/1.png": b"", "cats/.x.png": b""}), 400, "holds no"),
    "cut off": (lambda: good()[:-40], 400, "damaged or cut off"),
    "cut in the middle": (lambda: good()[:600], 400, "damaged or cut off"),
    "no zip": (lambda: b"this is no zip at all", 400, "is no zip file"),
    "nothing": (lambda: b"", 400, "is no zip file"),
    "program before the zip": (lambda: b"MZ" + bytes(100) + good(), 400, "is no zip file"),
    "too large": (lambda: good() + bytes(2**20), 413, "1,048,576 bytes"),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory, embedded):
    """A folder with a root for data, a secret beside it, and the state of the server."""
    folder = tmp_path_factory.mktemp("attacks")
    for name in ("root/data/yes", "root/data/no", "secret/yes", "secret/no", "root-sibling/yes"):
        (folder / name).mkdir(parents=True)
        (folder / name / "1.png").write_bytes(picture(3))
    (folder / "secret.npz").write_bytes(b"x")
    (folder / "root/manifest.csv").write_text(f"path,label\n{folder}/secret/yes/1.png,yes\n")
    (folder / "root/out").symlink_to(folder / "secret")
    (folder / "root/out.npz").symlink_to(folder / "secret.npz")
    (folder / "root/mixed/yes").mkdir(parents=True)
    (folder / "root/mixed/yes/1.png").symlink_to(folder / "secret/yes/1.png")
    (folder / "root/linked").mkdir()
    (folder / "root/linked/no").symlink_to(folder / "secret/no")
    (folder / "root/round").mkdir()
    (folder / "root/round/round").symlink_to(folder / "root/round")
    (folder / "root/circle").symlink_to(folder / "root/circle")
    return folder


@pytest.fixture(scope="module")
def server(place, embedded):
    with serving(embedded, place / "state", limits=small_limits(), roots=(place / "root",)) as client:
        yield client


def contents(*folders: Path) -> dict[str, bytes | None]:
    """Every file and folder below some, with its bytes."""
    return {
        str(path): path.read_bytes() if path.is_file() else None
        for folder in folders
        for path in folder.rglob("*")
    }


@pytest.fixture
def untouched(place, embedded, server):
    """Fails unless everything on the disk is as it was before the test."""
    before = contents(place / "state", embedded)
    assert len(before) > 10
    yield
    assert contents(place / "state", embedded) == before


def check_refused(answer, status: int, part: str) -> None:
    """One sentence in the one shape, and nothing of a traceback."""
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"status", "code", "message", "details"}
    assert error["status"] == status
    assert part in error["message"]
    assert "\n" not in error["message"]
    assert "Traceback" not in answer.text


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(("make", "status", "part"), ZIPS.values(), ids=ZIPS)
def test_a_bad_zip_is_refused_and_leaves_nothing(server, make, status, part):
    answer = server.post(
        "/api/v1/uploads", content=make(), headers={**BEARER, "Content-Type": "application/zip"}
    )
    check_refused(answer, status, part)


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("name", ["symbolic link", "leads up", "encrypted", "one class", "no zip", "too large"])
def test_a_bad_zip_in_a_form_is_refused_and_leaves_nothing(server, name):
    make, status, part = ZIPS[name]
    answer = server.post(
        "/api/v1/uploads", files={"file": ("a.zip", make(), "application/zip")}, headers=BEARER
    )
    check_refused(answer, status, part)


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    ("content", "kind", "status", "part"),
    [
        (good(), "image/png", 415, "this came as image/png"),
        (good(), "text/html", 415, "this came as text/html"),
        (good(), "", 415, "this came as nothing"),
        (b"--x\r\nbroken", "multipart/form-data; boundary=x", 400, "or is cut off"),
        (b"--x\r\n", "multipart/form-data", 400, "Missing boundary"),
        (b"--x\r\n", f"multipart/form-data; boundary={'x' * 500}", 400, "the form cannot be read"),
        (
            b'--x\r\nContent-Disposition: form-data; name="other"\r\n\r\nabc\r\n--x--\r\n',
            "multipart/form-data; boundary=x",
            400,
            "the form has no file 'file'",
        ),
        (
            2 * b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nabc\r\n'
            + b"--x--\r\n",
            "multipart/form-data; boundary=x",
            400,
            "Too many files",
        ),
        (
            b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nabc',
            "multipart/form-data; boundary=x",
            400,
            "or is cut off",
        ),
        (b"--x\r\nA: " + b"b" * 9000, "multipart/form-data; boundary=x", 400, "the form cannot be read"),
    ],
    ids=[
        "image",
        "html",
        "no type",
        "broken form",
        "no boundary",
        "long boundary",
        "no field",
        "twice",
        "cut off",
        "long header",
    ],
)
@pytest.mark.filterwarnings(  # Starlette leaves the file of a form that is cut off to the garbage collector
    "ignore:Exception ignored in. <function SpooledTemporaryFile:pytest.PytestUnraisableExceptionWarning"
)
def test_what_is_no_zip_in_words_is_refused_and_leaves_nothing(server, content, kind, status, part):
    answer = server.post("/api/v1/uploads", content=content, headers={**BEARER, "Content-Type": kind})
    check_refused(answer, status, part)


PATHS = {
    "outside": ("{}/secret", "is not below a folder"),
    "outside and not there": ("{}/nothing-there", "is not below a folder"),
    "up and out": ("{}/root/../secret", "is not below a folder"),
    "up twice": ("{}/root/data/../../secret", "is not below a folder"),
    "sibling of the same beginning": ("{}/root-sibling", "is not below a folder"),
    "a link out": ("{}/root/out", "is not below a folder"),
    "a link to a file outside": ("{}/root/out.npz", "is not below a folder"),
    "a linked picture": ("{}/root/mixed", "is a link that leads out"),
    "a linked class": ("{}/root/linked", "is a link that leads out"),
    "a link in a circle": ("{}/root/circle", ""),
    "a folder in itself": ("{}/root/round", "is a link to a folder"),
    "a manifest": ("{}/root/manifest.csv", "no data that may be named here"),
    "relative": ("root/data", "is no absolute path"),
    "home": ("~/data", "is no absolute path"),
    "etc": ("/etc", "is not below a folder"),
    "proc": ("/proc/self/environ", "is not below a folder"),
    "nul": ("{}/root/data\0", "is no absolute path"),
    "a data spec": ("sklearn:digits", "is no absolute path"),
    "a place": ("s3://bucket/data", "is no absolute path"),
    "endless": ("/" + "x" * 4000, "is not below a folder"),
}


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(("path", "part"), PATHS.values(), ids=PATHS)
def test_a_path_out_of_the_roots_is_refused(server, place, path, part):
    job = {"kind": "recommend", "data": {"path": path.format(place)}}
    answer = server.post("/api/v1/jobs", json=job, headers=BEARER)
    status = 404 if not part and answer.status_code == 404 else 400
    check_refused(answer, status, part)


def test_the_process_of_a_job_checks_the_path_once_more(place, embedded):
    """It may have become a link since the server looked."""
    command = {
        "uri": str(embedded),
        "builtin": True,
        "kind": "recommend",
        "name": None,
        "tags": [],
        "options": {},
    }
    command |= {
        "path": str(place / "root/out"),
        "roots": [str(place / "root")],
        "label": "x",
        "vectors": "none",
    }
    with pytest.raises(InvalidQueryError, match="is not below a folder that this server may read"):
        run(command, lambda *_: None)


@pytest.mark.usefixtures("untouched")
def test_no_path_is_taken_without_roots(place, embedded, tmp_path):
    with serving(embedded, tmp_path / "state") as client:
        job = {"kind": "recommend", "data": {"path": str(place / "root/data")}}
        check_refused(client.post("/api/v1/jobs", json=job, headers=BEARER), 400, "this server takes no paths")


def test_a_good_zip_is_taken(server, place):
    """Or else all of the above may be refused for another reason."""
    answer = server.post(
        "/api/v1/uploads", content=good(), headers={**BEARER, "Content-Type": "application/zip"}
    )
    assert answer.status_code == 201, answer.text
    assert answer.json()["classes"] == {"cats": 3, "dogs": 3}
    folder = place / "state/uploads" / answer.json()["upload"]
    unpacked = {str(path.relative_to(folder / "data")): path.read_bytes() for path in folder.rglob("*.png")}
    assert unpacked == images()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert server.delete(f"/api/v1/uploads/{folder.name}", headers=BEARER).status_code == 204
    assert not folder.exists()


@pytest.mark.parametrize(
    "files",
    [
        images(top="photos/"),
        {**images(("a", "b"), top="train/"), **images(("a", "b"), top="test/")},
        {**images(), "cats/.hidden": b"x", "__MACOSX/cats/._1.png": b"x", "Thumbs.db": b"x"},
        {**images(("Möwen", "鳥"))},
    ],
    ids=["one folder around", "splits", "what systems leave", "unicode"],
)
def test_usual_zips_are_taken(server, files):
    form = {"file": ("photos.zip", io.BytesIO(packed(files)), "application/zip")}
    answer = server.post("/api/v1/uploads", files=form, headers=BEARER)
    assert answer.status_code == 201, answer.text
    assert sum(answer.json()["classes"].values()) == answer.json()["samples"] == 6
    assert answer.json()["files"] == len(files)
    assert os.path.isdir(server.app.state.uploads.data(answer.json()["upload"]))  # noqa: PTH112
    server.delete(f"/api/v1/uploads/{answer.json()['upload']}", headers=BEARER)
