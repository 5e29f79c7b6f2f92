"""What trackers wrote fills a registry: every run is used, or left out for a cause that is said.

``trackers.zip`` holds what the real packages wrote, see ``scripts/make/make_tracker_files.py``; where they are
installed, the slow tests let them write anew.
"""

import os
import random
import re
import sqlite3
import struct
import zipfile
import zlib
from pathlib import Path

import pytest
from command_lines import answer, ok, t2v
from extras import skip_without
from templates import starter

from registry import TaskRegistry
from registry.errors import InvalidQueryError, InvalidRecordError
from registry.trackers.wandb import read_offline

BEST, SMALL, HUB = "resnet50.a1_in1k", "resnet18.a1_in1k", "vit_small_patch14_dinov2.lvd142m"
MLFLOW = [
    (BEST, 0.9), (BEST, 0.91), (SMALL, 0.7), (SMALL, 0.8), (SMALL, 0.81), (SMALL, 0.85)
]  # fmt: skip
WRITTEN = {
    "mlflow": (["mlflow", "sqlalchemy"], 13, MLFLOW),
    "mlruns": (["mlflow"], 13, MLFLOW),
    "wandb": (["wandb"], 3, [(BEST, 0.91), (SMALL, 0.81)]),
    "dvclive": (["dvclive"], 1, [(SMALL, 0.91)]),
    "lightning": (["lightning"], 1, [(SMALL, 0.89)]),
    "trainer": (["transformers", "accelerate"], 1, [(SMALL, 0.5)]),
    "timm": (["timm"], 1, [(SMALL, 0.91)]),
    "ultralytics": (["ultralytics"], 1, []),
    "cards": (["huggingface_hub"], 4, [(BEST, 0.93), (HUB, 0.955), (HUB, 0.965)]),
}
"""Packages that write each, the runs there are, and the experts and values of those that count."""

CAUSES = {
    "without a metric that counts; there is none": "folds",
    "failed": "failed",
    "without a task; task_from= says where it stands; there are ": "no dataset",
    "val/acc is not finite (nan)": "diverged",
    "deleted": "deleted, of a deleted experiment",
    "not finished": "goes on",
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trackers")
    with zipfile.ZipFile(Path(__file__).parents[2] / "support" / "fixtures" / "trackers.zip") as kept:
        kept.extractall(folder)
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return Path(starter(tmp_path_factory.mktemp("registry") / "registry").uri)


@pytest.fixture(scope="module")
def registry(place):
    return TaskRegistry(place)


@pytest.fixture
def lightning(tmp_path):
    """Writes runs as Lightning does, by name: the text of a metrics.csv, and settings."""

    def write(name, metrics, settings="dataset: flowers5\nmodel: resnet18.a1_in1k\n"):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        (folder / "metrics.csv").write_text(metrics)
        (folder / "hparams.yaml").write_text(settings)
        return tmp_path / "runs"

    return write


def rows(imported):
    return [(one.task, one.expert, round(one.accuracy, 6), one.metric) for one in imported.results]


# What the real packages wrote


@pytest.mark.parametrize("tracker", WRITTEN)
def test_what_a_tracker_wrote_is_recognised(files, registry, tracker):
    check(registry.import_results(files / tracker, dry_run=True, unregistered=False) if WRITTEN[tracker][2]
          else registry.import_results(files / tracker, dry_run=True, unregistered=True), tracker)  # fmt: skip


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the packages
@pytest.mark.parametrize("tracker", WRITTEN)
def test_what_a_tracker_writes_now_is_recognised(tmp_path, registry, tracker):
    for package in WRITTEN[tracker][0]:
        skip_without(package)
    from make_tracker_files import WRITERS

    WRITERS[tracker](tmp_path)
    check(registry.import_results(tmp_path, dry_run=True, unregistered=not WRITTEN[tracker][2]), tracker)


def check(imported, tracker):
    _, runs, expected = WRITTEN[tracker]
    assert imported.runs == runs
    assert sum(int(line.partition(": ")[2].split()[0]) for line in imported[1]) + len(imported.results) == runs
    values = sorted((one.expert, round(one.accuracy, 6)) for one in imported.results)
    assert values == sorted(expected or [("yolo11n-cls", 0.5)])
    assert {one.task for one in imported.results} <= {"flowers5", "orchids"}


def test_every_run_that_cannot_count_has_a_cause(files, registry):
    imported = registry.import_results(files / "mlflow" / "mlflow.db", dry_run=True)
    assert len(imported[1]) == len(CAUSES)
    for cause, names in CAUSES.items():
        assert any(cause in line and line.endswith(f": {names}") for line in imported[1]), cause


def test_results_say_where_they_are_from(files, registry):
    imported = registry.import_results(files / "mlflow", dry_run=True)
    by_digest = next(one for one in imported.results if one.task == "orchids")  # not registered
    assert by_digest.source.startswith("MLflow: by digest, by ana, 20")
    assert by_digest.source.endswith("val/acc, dataset orchids of digest 22bb")
    seeds = {one.seed for one in imported.results if one.task == "flowers5"}
    assert seeds == {7, None}
    with sqlite3.connect(files / "mlflow" / "mlflow.db") as database:
        ids = {run for (run,) in database.execute("SELECT run_uuid FROM runs")}
    assert {one.run_id for one in imported.results} <= ids


def test_what_was_imported_is_recommended_and_counts_once(files, tmp_path):
    registry = starter(tmp_path / "registry")
    (tmp_path / "experts.csv").write_text("\n".join(["expert", BEST, SMALL, HUB]))
    registry.import_experts(tmp_path / "experts.csv")
    places = [files / name for name in ("mlflow", "mlruns", "wandb", "cards")]
    added = [registry.import_results(place)[0] for place in places]
    assert added == [6, 6, 2, 3]
    assert [
        (registry.import_results(place)[0], registry.import_results(place).present) for place in places
    ] == [(0, count) for count in added]
    recommended = registry.recommend("flowers5", k=1, protocol="fine_tuned").recommendations[0]
    assert (recommended.expert, recommended.measured) == (BEST, True)


def test_a_run_that_is_read_twice_counts_once(files, registry, tmp_path):
    for name in ("a.db", "b.db"):
        (tmp_path / name).write_bytes((files / "mlflow" / "mlflow.db").read_bytes())
    once = registry.import_results(f"sqlite:///{tmp_path / 'a.db'}", dry_run=True)
    twice = registry.import_results(tmp_path, dry_run=True)
    assert sorted(rows_ids(twice)) == sorted(rows_ids(once))
    assert any("(read twice)" in line for line in twice[1])


def test_a_moved_run_is_the_same_run(lightning, registry, tmp_path):
    runs = lightning("version_0", "epoch,step,val_acc\n0,1,0.5\n")
    before = rows_ids(registry.import_results(runs, dry_run=True))
    runs.rename(tmp_path / "elsewhere")
    assert rows_ids(registry.import_results(tmp_path / "elsewhere", dry_run=True)) == before


def rows_ids(imported):
    return [one.run_id for one in imported.results]


# Metrics


@pytest.mark.parametrize(
    ("header", "cells", "expected"),
    [
        ("eval/acc", "0.5", (0.5, "accuracy")),
        ("test_acc1", "50", (0.5, "accuracy")),
        ("val_MulticlassAccuracy", "0.5", (0.5, "accuracy")),
        ("metrics/accuracy_top1", "0.5", (0.5, "accuracy")),
        ("val_acc_epoch", "0.5", (0.5, "accuracy")),
        ("val_loss", "1.25", (1.25, "loss")),
        ("test_error", "0.25", (0.25, "error_rate")),
        ("val_balanced_accuracy", "0.5", (0.5, "balanced_accuracy")),
        ("val/macro_f1", "0.5", (0.5, "macro_f1")),
        ("val_auroc,val_loss", "0.5,1", (0.5, "roc_auc")),
        ("val_loss,test_acc,val_acc", "1,0.5,0.75", (0.5, "accuracy")),  # test samples go before others
        ("train_acc,val_acc", "1,0.5", (0.5, "accuracy")),
        ("best_val_acc,val_acc", "1,0.5", (0.5, "accuracy")),
        ("best/test/acc@1", "0.5", (0.5, "accuracy")),
    ],
)
def test_metrics_are_told_by_their_names(lightning, registry, header, cells, expected):
    place = lightning("run", f"epoch,step,{header}\n0,1,{cells}\n")
    ((_, _, value, metric),) = rows(registry.import_results(place, dry_run=True))
    assert (value, metric) == expected


def test_rules_choose_metrics_steps_and_scales(lightning, registry):
    place = lightning("run", "epoch,step,val_acc,val_loss,wer\n0,1,70,0.5,0.3\n1,2,60,0.9,0.2\n2,3,,,0.25\n")

    def values(*metric, **rules):
        return [(one.accuracy, one.metric, one.lower_is_better) for one in
                registry.import_results(place, dry_run=True, metric=metric, **rules).results]  # fmt: skip

    assert values("val_acc=accuracy") == [(0.6, "accuracy", False)]
    assert values("val_acc=accuracy", step="best") == [(0.7, "accuracy", False)]
    assert values("val_loss=loss:best", "wer=wer:lower") == [(0.5, "loss", True), (0.25, "wer", True)]
    assert values("nonesuch=accuracy", "val_acc=accuracy:best") == [(0.7, "accuracy", False)]
    with pytest.raises(InvalidRecordError, match=r"which way wer goes is not known: metric='wer=wer:lower'"):
        values("wer=wer")
    with pytest.raises(InvalidRecordError, match=r"accuracy must be from 0 to 1.*: runs/run \(60"):
        values("val_acc=accuracy:share")
    with pytest.raises(InvalidRecordError, match="metric='NAME=accuracy' takes one of val_acc, val_loss, wer"):
        values("val_ac=accuracy")


def test_what_is_not_finite_is_no_best_step_and_no_percentage(lightning, registry):
    place = lightning("run", "epoch,step,val_acc\n0,1,0.75\n1,2,inf\n2,3,nan\n")
    (best,) = registry.import_results(place, dry_run=True, step="best").results
    assert best.accuracy == 0.75
    with pytest.raises(InvalidRecordError, match=re.escape("(val_acc is not finite (nan)): runs/run")):
        registry.import_results(place, dry_run=True)


def test_a_share_among_percentages_is_not_guessed(lightning, registry):
    lightning("a", "epoch,step,val_acc\n0,1,0.9\n")
    place = lightning("b", "epoch,step,val_acc\n0,1,90\n")
    imported = registry.import_results(place, dry_run=True)
    assert rows(imported) == [("flowers5", SMALL, 0.9, "accuracy")]
    assert "val_acc is at most 1, and in per cent in other runs" in imported[1][0]


def test_scores_of_a_search_are_of_the_task_that_is_named(files, registry):
    said = {"task_from": "name:flowers5", "expert_from": f"name:{SMALL}"}
    imported = registry.import_results(files / "search" / "search.csv", dry_run=True, **said)
    assert [one.accuracy for one in imported.results] == pytest.approx([0.946667, 0.973333], abs=1e-5)
    assert {one.protocol for one in imported.results} == {"cross_validation"}
    said["metric"] = "test_neg_log_loss=log_loss"
    losses = registry.import_results(files / "search", dry_run=True, **said).results
    assert [round(one.accuracy, 3) for one in losses] == [0.352, 0.15]


# Tasks, experts and runs


def test_names_are_looked_up_before_they_are_believed(lightning, registry):
    settings = (
        "data: {name: train, data_dir: x}\ndata_dir: /mnt/x/Flowers-5/train\nmodel: timm/resnet50.a1_in1k\n"
    )
    place = lightning("run", "epoch,step,val_acc\n0,1,0.5\n", settings)
    imported = registry.import_results(place, dry_run=True)
    assert rows(imported) == [("flowers5", BEST, 0.5, "accuracy")]
    assert (
        "Took '/mnt/x/Flowers-5/train' for flowers5, 'timm/resnet50.a1_in1k' for resnet50.a1_in1k."
        in imported.taken
    )


@pytest.mark.parametrize(
    "settings",
    [
        "dataset: pets\ndata_dir: /data/flowers5\n",  # what is said of the dataset decides
        "dataset: /data/flowers5/pets\n",  # not a folder above it
        "dataset: flowers5-without-weeds\n",
    ],
)
def test_a_dataset_is_not_taken_for_another_that_is_registered(lightning, registry, settings):
    place = lightning("flowers5", "epoch,step,val_acc\n0,1,0.5\n", f"{settings}model: {SMALL}\n")
    with pytest.raises(InvalidRecordError, match="of tasks that are not registered"):
        registry.import_results(place, dry_run=True)


def test_a_folder_names_the_task_where_nothing_else_does(lightning, registry):
    place = lightning("flowers5", "epoch,step,val_acc\n0,1,0.5\n", f"model: {SMALL}\n")
    assert rows(registry.import_results(place, dry_run=True)) == [("flowers5", SMALL, 0.5, "accuracy")]


def test_links_of_the_hub_are_followed_and_pipes_are_not_read(files, registry, tmp_path):
    snapshot = tmp_path / "models--facebook--dinov2-small" / "snapshots" / "0a1b2c3"
    (snapshot / ".eval_results").mkdir(parents=True)
    (snapshot / ".eval_results" / "x.yaml").symlink_to(next(files.glob("cards/**/flowers5.yaml")))
    os.mkfifo(tmp_path / "metrics.csv")
    (model := tmp_path / "mlruns" / "0" / "models" / "m-1" / "metrics").mkdir(parents=True)
    (model.parent / "meta.yaml").write_text("model_id: m-1\nsource_run_id: 1\n")  # of a model, not a run
    imported = registry.import_results(tmp_path, dry_run=True)
    assert (imported.runs, [one.expert for one in imported.results]) == (2, [HUB, HUB])


def test_what_is_not_registered_is_taken_only_when_asked(lightning, registry):
    place = lightning("a", "epoch,step,val_acc\n0,1,0.5\n", "dataset: my pets\nmodel: /m/net.pt\n")
    message = "1 run is left out (of tasks that are not registered; unregistered=True takes them): my-pets"
    with pytest.raises(InvalidRecordError, match=re.escape(f"{place}: {message}")):
        registry.import_results(place, dry_run=True)
    imported = registry.import_results(place, dry_run=True, unregistered=True)
    assert rows(imported) == [("my-pets", "net", 0.5, "accuracy")]
    assert imported.taken[-1].endswith("(t2v expert add, or t2v expert import timm): net.")


def test_a_file_of_rules_maps_names(lightning, registry, tmp_path):
    place = lightning("a", "epoch,step,val_acc\n0,1,0.5\n", "set: blumen\nnet: mine\nhow: probe 5\n")
    rules = tmp_path / "rules.toml"
    rules.write_text(
        'task-from = "param:set"\nexpert_from = ["param:none", "param:net"]\nprotocol = "param:how"\n'
        '[metric]\nval_acc = "top1"\n[task]\nblumen = "flowers5"\n[expert]\nmine = "resnet18.a1_in1k"\n'
    )
    imported = registry.import_results(place, dry_run=True, file=rules)
    assert rows(imported) == [("flowers5", SMALL, 0.5, "top1")]
    assert imported.results[0].protocol == "probe-5"
    rules.write_text('tasks-from = "param:set"\n')
    with pytest.raises(
        InvalidQueryError, match=r"rules.toml: there is no rule 'tasks_from'; rules are task_from,"
    ):
        registry.import_results(place, dry_run=True, file=rules)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (
            {"task_from": "dataset"},
            "task_from= must be KIND:KEY with param, tag, dataset, run, name as the kind",
        ),
        ({"metric": "val_acc"}, "metric must be THEIRS=OURS, such as val_acc=accuracy"),
        ({"metric": "val_acc=accuracy:percentage"}, "metric must be THEIRS=OURS"),
        ({"step": "first"}, "step must be last or best, got 'first'"),
        ({"file": "nonesuch.toml"}, "nonesuch.toml: is no file"),
    ],
)
def test_bad_rules_are_refused_in_words(files, registry, rules, message):
    with pytest.raises((InvalidQueryError, InvalidRecordError)) as error:
        registry.import_results(files / "wandb", dry_run=True, **rules)
    assert str(error.value).startswith(message)


def test_a_part_of_a_run_that_was_measured_itself_is_left_out(files, registry, tmp_path):
    copy = tmp_path / "mlflow.db"
    copy.write_bytes((files / "mlflow" / "mlflow.db").read_bytes())
    with sqlite3.connect(copy) as database:
        parent = database.execute("SELECT run_uuid FROM runs WHERE name = 'folds'").fetchone()[0]
        database.execute("INSERT INTO latest_metrics VALUES ('val/acc', 0.8, 1, 0, 0, ?)", [parent])
    imported = registry.import_results(copy, dry_run=True)
    assert any("part of a run that has the metric itself): fold 0, fold 1" in line for line in imported[1])
    assert [one.accuracy for one in imported.results if "folds" in one.source] == [0.8]


# Weights & Biases as tables


def test_exported_tables_are_recognised(registry, tmp_path):
    (tmp_path / "page.csv").write_text(
        '"Name","State","User","Created","dataset","model","test/top1"\n'
        '"a","finished","ana","2026-01-02T03:04:05.000Z","flowers5","resnet18.a1_in1k","91.5"\n'
        '"b","crashed","ana","2026-01-02T03:04:06.000Z","flowers5","resnet18.a1_in1k","91.5"\n'
    )
    (tmp_path / "api.csv").write_text(
        ",summary,config,name\n"
        "0,\"{'val': {'acc': 0.75}, 'x': nan}\",\"{'dataset': 'flowers5', 'model': 'resnet18.a1_in1k'}\",c\n"
    )
    imported = registry.import_results(tmp_path, dry_run=True)
    assert rows(imported) == [("flowers5", SMALL, 0.75, "accuracy"), ("flowers5", SMALL, 0.915, "accuracy")]
    assert imported.results[1].source == "Weights & Biases: a, by ana, 2026-01-02, test/top1"
    assert imported[1] == [f"{tmp_path}: 1 run is left out (crashed): b"]


# Files that are damaged or hostile


def test_damaged_files_are_left_out_in_words(files, registry, tmp_path):
    log = next(files.glob("wandb/wandb/*/*.wandb"))
    whole = log.read_bytes()
    damaged = {
        "cut.wandb": (whole[:-40], "not finished"),
        "flipped.wandb": (whole[:500] + b"?" + whole[501:], "is damaged at byte "),
        "empty.wandb": (b"", "is no log of Weights & Biases"),
        "metrics.csv": (b"epoch,step,val_acc\n\x00,1,0.5\n", "without a task"),
        "trainer_state.json": (b"[" * 100_000, "holds no JSON object"),
    }
    for name, (content, _) in damaged.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidRecordError, match="left out") as error:
        registry.import_results(tmp_path, dry_run=True)
    for _, cause in damaged.values():
        assert cause in str(error.value)
    torn = tmp_path / "mlflow.db"
    torn.write_bytes((files / "mlflow" / "mlflow.db").read_bytes()[:200_000])
    with pytest.raises(InvalidRecordError, match=r"\(cannot be read as a database of MLflow: .*: .*/mlflow.db"):
        registry.import_results(torn, dry_run=True)


def test_a_changed_log_is_read_or_refused(files):
    """Protobuf of any bytes: no error but ours, and no hang."""
    log = min(files.glob("wandb/wandb/*/*.wandb"), key=lambda path: path.stat().st_size)
    whole, changed, read = log.read_bytes(), log.with_name("changed.bin"), 0
    chunks, at = [], 7
    while at < len(whole):
        chunks.append((at, at + 7 + struct.unpack_from("<IH", whole, at)[1]))
        at = chunks[-1][1]
    generator = random.Random(0)
    for _ in range(200):
        begin, end = generator.choice(chunks)
        chunk = bytearray(whole[begin + 7 : end])
        chunk[generator.randrange(len(chunk))] = generator.randrange(256)
        checksum = struct.pack("<I", zlib.crc32(chunk, zlib.crc32(b"\1")))
        changed.write_bytes(whole[:begin] + checksum + whole[begin + 4 : begin + 7] + chunk + whole[end:])
        try:
            read_offline(changed)
            read += 1
        except InvalidRecordError:
            pass
    changed.unlink()
    assert 0 < read < 200


def test_what_no_tracker_wrote_is_refused(registry, tmp_path):
    with pytest.raises(
        InvalidRecordError, match="there is no run of a tracker; expected a database or folder mlruns"
    ):
        registry.import_results(tmp_path)
    (tmp_path / "results.csv").write_text("task,expert,accuracy\nflowers5,resnet14w32.mnist,0.5\n")
    with pytest.raises(InvalidQueryError, match=r"rules are for what a tracker wrote.* has columns instead"):
        registry.import_results(tmp_path / "results.csv", step="best")
    assert registry.import_results(tmp_path / "results.csv", dry_run=True) == (1, [])


def test_the_command_shows_what_it_would_add_and_adds_nothing(files, place):
    before = len(TaskRegistry(place).results())
    done = ok(place, "result", "import", files / "wandb", "--dry-run")
    assert [word in done.stdout for word in (BEST, SMALL, "0.910", "Weights & Biases: long")] == [True] * 4
    assert done.stderr.splitlines()[0] == "Read 3 runs: 3 of Weights & Biases."
    assert done.stderr.splitlines()[-1] == "Would add 2 results."
    assert len(TaskRegistry(place).results()) == before
    done = t2v(place, "result", "import", files / "wandb", "--task-from", "param:nonesuch")
    assert (done.exit_code, done.stderr.count("Error: ")) == (1, 1)
    assert answer(place, "result", "list", "--expert", BEST) == []
