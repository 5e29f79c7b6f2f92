"""What a user can get wrong: one sentence that says what and where, exit code 1 or 2, nothing changed."""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from builders import make_embedding, make_expert, make_result, make_space, make_task
from builders_datasets import encoded, noise_image, write_folder, write_npz, write_tar
from click.testing import CliRunner
from PIL import Image

from registry import TaskRegistry
from registry.cli.main import main
from registry.storage.store import Store

EXPERT = "resnet18.tv_in1k"


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """What the cases speak of: a registry, a newer one, and one bad dataset or file of each kind."""
    root = tmp_path_factory.mktemp("places")
    make_registry(root / "registry")
    make_registry(root / "newer").database.commit(
        "meta", lambda table: table.update(where="key = 'schema_version'", values={"value": "99"})
    )
    (root / "file").write_text("This is no registry.")
    (root / "foreign").mkdir()
    (root / "foreign" / "thesis.txt").write_text("This is no registry either.")
    write_folder(root / "good", {"no": 2, "yes": 2})
    write_bad_folders(root)
    write_bad_files(root)
    return root


def make_registry(folder):
    store = Store.create(folder)
    store.add_space(make_space())
    store.add_tasks([(make_task(name), make_embedding(name)) for name in ("birds", "flowers")], "space0")
    store.add_experts([make_expert()])
    store.add_results([make_result("birds")])
    return store


def write_bad_folders(root):
    (root / "flat").mkdir()
    noise_image(0).save(root / "flat" / "0.png")
    write_folder(root / "one_class", {"no": 4})
    write_folder(root / "empty_class", {"no": 2, "yes": 0})
    write_folder(root / "single", {"no": 2, "yes": 1})
    jpeg = encoded(noise_image(0, 64, 64), "JPEG")
    for name, content in {
        "text": b"no image at all",
        "truncated": jpeg[: len(jpeg) // 2],
        "hollow": b"",
    }.items():
        write_folder(root / name, {"no": 2, "yes": 2}, ".jpg")
        (root / name / "yes" / "001.jpg").write_bytes(content)


def write_bad_files(root):
    write_npz(root / "complex_labels.npz", labels=np.zeros(12, complex))
    write_npz(root / "objects.npz", labels=np.array([{}] * 12, dtype=object))
    write_npz(root / "lengths.npz", labels=np.array([0, 1]))
    (root / "empty.npz").write_bytes(b"")
    (root / "no_label.csv").write_text("path,width,height\ngood/no/000.png,1,2\n")
    (root / "no_file.csv").write_text("path,label\ngood/no/000.png,no\ngood/no/nonesuch.png,yes\n")
    pa.parquet.write_table(pa.table({"path": ["good/no/000.png"]}), root / "no_label.parquet")
    write_tar(root / "flat.tar", {"0.png": encoded(noise_image(0), "PNG")})
    (root / "cut.tar").write_bytes((root / "flat.tar").read_bytes()[:300])
    (root / "folder.csv").mkdir()
    (root / "nan.csv").write_text(f"task,expert,accuracy\nbirds,{EXPERT},nan\n")
    (root / "unknown.csv").write_text(f"task,expert,accuracy\nbirds,{EXPERT},0.5\nbirdz,{EXPERT},0.5\n")
    (root / "no_accuracy.csv").write_text(f"task,expert\nbirds,{EXPERT}\n")
    (root / "experts.csv").write_text(f"expert,loader\nnew.x,\n{EXPERT},resnet18@/mine.pth\n")
    (root / "negative.csv").write_text("expert,num_params\nnew.x,-5\n")
    (root / "binary.csv").write_bytes(bytes(range(256)))


# For each: the command, in which {root} is the folder of places, and what the sentence must say.
BAD_DATA = {
    "folder-without-class-folders": (
        "flat",
        "flat: holds no class folders; expected images in <class>/<name>.jpg",
    ),
    "one-class": ("one_class", "one_class: has only the class 'no'; a task needs at least two classes"),
    "empty-class": ("empty_class", "empty_class: class folder 'yes' holds no images"),
    "class-of-one": ("single", "single: class 'yes' has one sample; every class needs at least two"),
    "text-named-jpg": ("text", "text: 1 of 4 sampled files cannot be decoded, more than a tenth: yes/001.jpg"),
    "truncated-jpeg": (
        "truncated",
        "truncated: 1 of 4 sampled files cannot be decoded, more than a tenth: yes/001",
    ),
    "zero-byte-file": (
        "hollow",
        "hollow: 1 of 4 sampled files cannot be decoded, more than a tenth: yes/001.jpg",
    ),
    "complex-labels": (
        "complex_labels.npz",
        "complex_labels.npz: labels must be integers, words, or floats of a regression, got complex128",
    ),
    "object-arrays": ("objects.npz", "objects.npz: is not an .npz file of plain number arrays"),
    "lengths-differ": ("lengths.npz", "lengths.npz: images and labels must be equally many, got 12 and 2"),
    "empty-npz": ("empty.npz", "empty.npz: is not an .npz file of plain number arrays"),
    "manifest-without-column": (
        "no_label.csv",
        "the labels could be in the columns width, height; say which by",
    ),
    "parquet-without-column": ("no_label.parquet", "no_label.parquet: column 'label' is missing"),
    "manifest-with-missing-file": (
        "no_file.csv",
        "no_file.csv: line 3: file 'good/no/nonesuch.png' does not exist",
    ),
    "tar-without-classes": (
        "flat.tar",
        "flat.tar: holds no class folders; expected images in <class>/<name>.jpg",
    ),
    "cut-tar": ("cut.tar", "cut.tar: is not a complete, uncompressed tar file"),
    "folder-named-csv": ("folder.csv", "folder.csv: holds no class folders"),
    "no-such-data": ("nonesuch", "nonesuch: no such file or folder; supported are "),
    "no-data-kind": ("file", "file: is no supported kind of data; supported are "),
}
CASES = {
    **{name: (f"task add new {{root}}/{data}", says) for name, (data, says) in BAD_DATA.items()},
    "embed-bad-data": ("embed {root}/flat", "flat: holds no class folders"),
    "no-such-split": (
        "task add new {root}/good --split test",
        "good: has no splits, so split 'test' cannot be chosen",
    ),
    "no-such-device": ("task add new {root}/good --device tpu", "no device is named 'tpu'; expected auto, cpu"),
    "max-samples-1": ("task add new {root}/good --max-samples 1", "max_samples must be at least 2, got 1"),
    "negative-seed": (
        "task add new {root}/good --seed -1",
        "Invalid value for '--seed': -1 is not in the range",
    ),
    "unknown-probe": (
        "task add new {root}/good --probe resnet14w32.tiny_imagnet",
        "is named 'resnet14w32.tiny_imagnet'; did you mean resnet14w32.tiny_imagenet",
    ),
    "unknown-architecture": (
        "task add new {root}/good --probe resnet19@x.pt",
        "'resnet19'; did you mean resnet18",
    ),
    "missing-weights": ("task add new {root}/good --probe resnet18@{root}/x.pt", "x.pt: no such weights file"),
    "bad-weights": (
        "expert add resnet18@{root}/file",
        "file: text file; expected .safetensors or a PyTorch checkpoint",
    ),
    "probe-without-tasks": ("nearest birds --probe tiny.tset", "is named 'tiny.tset'; did you mean tiny.test?"),
    "unknown-distance": (
        "nearest birds --distance cosin",
        "no distance is named 'cosin'; did you mean cosine?",
    ),
    "unknown-distance-2": (
        "distance birds flowers --distance kll",
        "no distance is named 'kll'; did you mean kl?",
    ),
    "unknown-task": ("nearest birdz", "no task is named 'birdz'; did you mean birds?"),
    "unknown-task-shown": ("task show flower", "no task is named 'flower'; did you mean flowers?"),
    "unknown-version": ("task show birds@7", "'birds@7'"),
    "unknown-task-removed": ("task remove birdz", "no task is named 'birdz'; did you mean birds?"),
    "unknown-task-tagged": ("task tag birdz --add x", "no task is named 'birdz'; did you mean birds?"),
    "unknown-expert": ("expert show resnet18.tv_in2k", f"is named 'resnet18.tv_in2k'; did you mean {EXPERT}?"),
    "unknown-expert-removed": ("expert remove resnet18.tv", f"did you mean {EXPERT}?"),
    "unknown-expert-measured": ("result measure birds resnet18.tv", f"did you mean {EXPERT}?"),
    "unknown-expert-added": ("expert add resnet18.IMAGENET1K_V9", "did you mean resnet18.IMAGENET1K_V1"),
    "result-of-unknown-task": (
        f"result add birdz {EXPERT} --accuracy 1",
        "no task is named 'birdz'; did you mean",
    ),
    "result-of-unknown-expert": ("result add birds resnet --accuracy 1", "no expert is named 'resnet'"),
    "duplicate-expert": (
        f"expert add resnet14w32.tiny_imagenet --name {EXPERT}",
        f"expert {EXPERT} is registered",
    ),
    "duplicate-expert-imported": ("expert import {root}/experts.csv", f"expert {EXPERT} is registered"),
    "accuracy-1.7": (
        f"result add birds {EXPERT} --accuracy 1.7",
        f"result of {EXPERT} on birds: accuracy must be from 0 to 1, got 1.7",
    ),
    "accuracy-nan": (f"result add birds {EXPERT} --accuracy nan", "accuracy must be from 0 to 1, got nan"),
    "accuracy-word": (f"result add birds {EXPERT} --accuracy good", "'good' is not a valid float"),
    "accuracy-nan-imported": ("result import {root}/nan.csv", "nan.csv, line 2: result of"),
    "unknown-task-imported": (
        "result import {root}/unknown.csv",
        "unknown.csv, line 3: no task is named 'birdz'",
    ),
    "no-accuracy-imported": (
        "result import {root}/no_accuracy.csv",
        "no_accuracy.csv: there is no column accuracy",
    ),
    "no-file-imported": ("result import {root}/nonesuch.csv", "nonesuch.csv: cannot be read as CSV"),
    "binary-imported": ("expert import {root}/binary.csv", "binary.csv: cannot be read as CSV"),
    "negative-imported": (
        "expert import {root}/negative.csv",
        "negative.csv, line 2: expert new.x: num_params must",
    ),
    "k-0": ("nearest birds -k 0", "Invalid value for '-k': 0 is not in the range x>=1."),
    "k-0-recommend": ("recommend birds -k 0", "Invalid value for '-k': 0 is not in the range x>=1."),
    "size": ("recommend birds --max-params 30Q", "'30Q' is no size; write a positive number such as 30M"),
    "input-size": ("recommend birds --input-size 0", "'--input-size': 0 is not in the range x>=1."),
    "source-accuracy": (
        "expert add resnet14w32.mnist --source-accuracy 99",
        "expert resnet14w32.mnist: source_accuracy must be from 0 to 1, got 99.0",
    ),
    "no-library-imported": ("expert import tim", "no library or CSV file is named 'tim'; did you mean timm?"),
    "trials": ("recommend birds --try -1", "Invalid value for '--try': -1 is not in the range x>=0."),
    "time-budget": (
        "recommend birds --try 1 --time-budget soon",
        "'soon' is no duration; write a positive number such as 90s, 5m or 1h",
    ),
    "keep-for-ever": (f"optimize --keep {'9' * 30}d", "is no duration; write a positive number such as 90s"),
    "time-budget-0": ("recommend birds --try 1 --time-budget 0s", "'0s' is no duration; write a positive"),
    "time-budget-alone": (
        "recommend birds --time-budget 5m",
        "time budget would change nothing without trials",
    ),
    "stop-below": (
        "recommend birds --try 1 --stop-below 2",
        "'--stop-below': 2.0 is not in the range 0<=x<=1.",
    ),
    "record-alone": ("recommend birds --record", "record would change nothing without trials"),
    "record-data": (
        "recommend {root}/good --try 1 --record",
        "good cannot be recorded: results are kept of registered tasks; register it with `t2v task add NAME",
    ),
    "data-gone": ("recommend birds --try 1", "the data of task birds is no longer at ./birds; put it back"),
    "given": (f"recommend birds --given {EXPERT}", "' is no accuracy of an expert; write EXPERT=ACCURACY"),
    "given-word": (
        f"recommend birds --given {EXPERT}=good",
        "=good' is no accuracy of an expert; write EXPERT=",
    ),
    "given-95": (
        f"recommend birds --given {EXPERT}=95",
        f"the accuracy given of {EXPERT} must be from 0 to 1, got 95",
    ),
    "given-unknown": (
        "recommend birds --given resnet19.tv_in1k=0.5",
        "no expert is named 'resnet19.tv_in1k'; did",
    ),
    "given-twice": (
        f"recommend birds --given {EXPERT}=0.5 --given {EXPERT}=0.6",
        f"{EXPERT} is given twice; give one accuracy of each expert",
    ),
    "licence": ("recommend birds --license ,", "',' names nothing; write words between commas"),
    "quote-in-name": ('task add "a\'b" {root}/good', '"a\'b" cannot name a task: allowed are 1 to 128 of'),
    "sql-in-name": ('task add "x; --" {root}/good', "'x; --' cannot name a task: allowed are 1 to 128 of"),
    "unicode-in-name": ("task add bl\u00fcmen {root}/good", "'bl\u00fcmen' cannot name a task: allowed are"),
    "newline-in-name": ('task add "a\nb" {root}/good', r"'a\nb' cannot name a task: allowed are"),
    "long-name": (f"task add {'x' * 129} {{root}}/good", "x' cannot name a task: allowed are 1 to 128 of"),
    "empty-name": ("task add '' {root}/good", "'' cannot name a task: allowed are 1 to 128 of"),
    "bad-tag": ("task add new {root}/good --tag 'a b'", "'a b' cannot name a tag: allowed are 1 to 128 of"),
    "bad-tag-2": ("task tag birds --add \u00fc", "'\u00fc' cannot name a tag: allowed are 1 to 128 of"),
    "bad-expert-name": ("expert add resnet14w32.mnist --name 'a;b'", "'a;b' cannot name an expert"),
    "bad-protocol": (
        f"result add birds {EXPERT} --accuracy 1 --protocol 'a b'",
        "'a b' cannot name a protocol",
    ),
    "sql-in-query": ("nearest \"x' or '1'='1; --\"", "no task is named \"x' or '1'='1; --\""),
    "sql-in-removal": ("task remove \"x' or '1'='1\"", "no task is named \"x' or '1'='1\""),
    "sql-in-expert": ("expert remove \"x' or '1'='1\"", "no expert is named \"x' or '1'='1\""),
    "where": ("task list --where 'version <'", "filter 'version <', character 10: expected a"),
    "where-2": (
        "nearest birds --where 'size = 3'",
        "filter 'size = 3', character 1: expected a field, got 'size'",
    ),
    "where-sql": ("task list --where \"name = 'a'; drop table tasks\"", "filter "),
    "no-such-command": ("nearst birds", "No such command 'nearst'."),
    "no-arguments": ("nearest", "Missing argument 'NAME|DATA'."),
    "registry-is-a-file": ("--registry {root}/file init --empty", "file is a file; a registry needs a folder"),
    "registry-is-a-file-2": (
        "--registry {root}/file task add new {root}/good",
        "file is a file; a registry needs",
    ),
    "registry-below-a-file": (
        "--registry {root}/file/sub init --empty",
        "file/sub: a registry cannot be created here: Not a directory",
    ),
    "registry-not-writable": (
        "--registry /proc/t2v init --empty",
        "/proc/t2v: a registry cannot be created here",
    ),
    "registry-is-foreign": (
        "--registry {root}/foreign init --empty",
        "foreign is not empty and holds no registry",
    ),
    "registry-missing": (
        "--registry {root}/none task list",
        "none: there is no registry yet; make one with `t2v init`",
    ),
    "registry-there": ("init --empty", "registry: there is a registry already"),
    "newer-schema": ("--registry {root}/newer task list", "schema version 99 is newer than"),
    "newer-schema-written": (
        f"--registry {{root}}/newer result add birds {EXPERT} --accuracy 1",
        "version 99 is newer",
    ),
}


def run(command, places):
    """Run a command line, with the registry of the places unless it names another."""
    runner = CliRunner(env={"T2V_REGISTRY": str(places / "registry")})
    return runner.invoke(main, command.replace("{root}", str(places)), catch_exceptions=False)


def contents(folder: Path) -> dict[str, bytes | None]:
    """Every folder and file below a folder, but for the locks of the registries."""
    paths = (path for path in folder.rglob("*") if not path.name.startswith("write.lock"))
    return {str(path): path.read_bytes() if path.is_file() else None for path in paths}


def faults_of(done, says):
    """What is wrong with how a command refused: it prints one sentence, and only wrong usage is explained."""
    *usage, sentence = done.stderr.splitlines() or [""]
    checks = {
        "exit code": done.exit_code in {1, 2},
        "prints an answer": done.stdout == "",
        "no error": sentence.startswith("Error: "),
        f"does not say {says!r}": says in sentence,
        "usage": (usage == []) == (done.exit_code == 1),
        "traceback": not re.search(r"Traceback|\.rs:\d|Error\(|<class '", done.output),
    }
    return [f"{fault}: {done.output}" for fault, is_right in checks.items() if not is_right]


def test_bad_input_is_one_sentence_and_changes_nothing(places):
    before, faults = contents(places), {}
    for name, (command, says) in CASES.items():
        faults[name] = faults_of(run(command, places), says)
        if contents(places) != before:
            faults[name].append("changes files")
    assert {name: wrong for name, wrong in faults.items() if wrong} == {}


def test_a_change_would_be_noticed(places, tmp_path):
    make_registry(tmp_path / "registry")
    before = contents(tmp_path)
    run("task tag birds --add x", tmp_path)
    assert contents(tmp_path) != before


def test_a_few_unreadable_files_are_named_and_skipped(places, tmp_path):
    data = write_folder(tmp_path / "data", {"no": 20, "yes": 20}, ".jpg")
    for number, content in enumerate(("text", "truncated", "hollow")):
        (data / "yes" / f"00{number}.jpg").write_bytes((places / content / "yes" / "001.jpg").read_bytes())
    TaskRegistry(tmp_path / "registry").init(empty=True)
    done = run(f"task add new {data}", tmp_path)
    assert done.exit_code == 0
    faults = "yes/000.jpg (text file), yes/001.jpg (truncated image), yes/002.jpg (empty file)"
    assert f"Warning: 3 unreadable files were skipped: {faults}\n" in done.stderr
    assert "samples used\t37\n" in done.stdout


def test_an_image_of_one_pixel_is_an_image(tmp_path):
    """It decodes, and is enlarged to what the probe sees: a plain colour, which is no fault of the data."""
    data = write_folder(tmp_path / "data", {"no": 4, "yes": 4})
    Image.new("RGB", (1, 1), "red").save(data / "yes" / "000.png")
    TaskRegistry(tmp_path / "registry").init(empty=True)
    done = run(f"task add new {data}", tmp_path)
    assert done.exit_code == 0
    assert "samples used\t8\n" in done.stdout
    assert "unreadable" not in done.stderr
