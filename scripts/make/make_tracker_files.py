"""Let trackers of experiments write runs, as the tests of ``t2v result import`` read them.

    pip install 'task2vec-registry[trackers]'
    python scripts/make/make_tracker_files.py tests/support/fixtures/trackers.zip

Every tracker is the real package. The runs are of resnet50.a1_in1k and resnet18.a1_in1k on flowers5, with what
goes wrong in real logs: runs that failed, go on, were deleted, have no dataset or are folds of another. Takes a
minute. Names of trackers after the file write only those.
"""

import os
import tempfile
import time
import zipfile
from collections.abc import Callable
from contextlib import chdir, suppress
from pathlib import Path

import click

import indexer.networks.torchvision  # noqa: F401  # before others look for torchvision

BEST, SMALL = "resnet50.a1_in1k", "resnet18.a1_in1k"
STEPS = (0.5, 0.93, 0.91)
SETTINGS = {"dataset": "flowers5", "model": BEST, "optimizer": {"name": "sgd", "lr": 0.1}, "seed": 7}


def write_mlflow(folder: Path, uri: str = "sqlite:///mlflow.db") -> None:
    """Runs of every state in the experiment pets, one with a dataset that only its digest tells, one nested."""
    os.environ |= {"MLFLOW_ALLOW_FILE_STORE": "true", "MLFLOW_TRACKING_USERNAME": "ana"}
    with chdir(folder):
        import mlflow

        mlflow.set_tracking_uri(uri)
        mlflow.set_experiment("pets")
        for name, model, steps in (("a", BEST, STEPS), ("b", SMALL, (0.85,)), ("again", BEST, (0.9,))):
            with mlflow.start_run(run_name=name):
                mlflow.log_params({"dataset": "flowers5", "seed": 7})
                mlflow.set_tag("model", model)
                for step, value in enumerate(steps):
                    mlflow.log_metrics({"val/acc": value, "val_loss": 1 - value, "train_acc": 1.0}, step=step)
        _write_parts_of_runs(mlflow)
        _write_runs_that_cannot_count(mlflow)


def _write_parts_of_runs(mlflow: object) -> None:
    """Folds of a run that only holds them together, and a dataset that is logged as one."""
    from mlflow.data.http_dataset_source import HTTPDatasetSource
    from mlflow.data.meta_dataset import MetaDataset

    with mlflow.start_run(run_name="folds"):
        mlflow.log_params({"dataset": "flowers5"})
        mlflow.set_tag("model", SMALL)
        for fold in range(2):
            with mlflow.start_run(run_name=f"fold {fold}", nested=True):
                mlflow.log_metric("val/acc", 0.8 + fold / 100)
    with mlflow.start_run(run_name="by digest"):
        for context, digest in (("training", "11aa"), ("eval", "22bb")):
            source = HTTPDatasetSource(url="https://example.com/orchids")
            mlflow.log_input(MetaDataset(source=source, name="orchids", digest=digest), context=context)
        mlflow.set_tag("model", SMALL)
        mlflow.log_metric("val/acc", 0.7)


def _write_runs_that_cannot_count(mlflow: object) -> None:
    def write(name: str, value: float = 0.1, **values: str) -> str:
        with mlflow.start_run(run_name=name) as run:
            mlflow.log_params({"model": BEST, **values})
            mlflow.log_metric("val/acc", value)
        return run.info.run_id

    with suppress(ArithmeticError), mlflow.start_run(run_name="failed"):
        mlflow.log_metric("val/acc", 0.1)
        raise ArithmeticError
    write("no dataset")
    write("diverged", float("nan"), dataset="flowers5")
    mlflow.delete_run(write("deleted", dataset="flowers5"))
    client = mlflow.MlflowClient()
    client.create_run(mlflow.get_experiment_by_name("pets").experiment_id, run_name="goes on")
    old = mlflow.set_experiment("old")
    write("of a deleted experiment", dataset="flowers5")
    mlflow.delete_experiment(old.experiment_id)


def write_mlruns(folder: Path) -> None:
    """The same in the folder that MLflow wrote before it had a database."""
    write_mlflow(folder, "file:./mlruns")


def write_wandb(folder: Path) -> None:
    """Offline runs: one with a value of more than two blocks, one that failed; accuracies in per cent."""
    import wandb

    settings = wandb.Settings(mode="offline", silent=True, x_disable_stats=True, x_disable_meta=True)
    for name, model, prompt, code in (
        ("long", BEST, "x" * 70_000, 0),
        ("short", SMALL, "", 0),
        ("failed", SMALL, "", 1),
    ):
        config = {**SETTINGS, "model": model, "prompt": prompt}
        run = wandb.init(project="pets", name=name, dir=folder, config=config, settings=settings)
        for value in STEPS:
            run.log(
                {"eval/acc": 100 * value if name == "long" else 100 * value - 10, "eval": {"loss": 1 - value}}
            )
        run.summary["best_acc"] = 93.0
        run.finish(exit_code=code)
        time.sleep(1)  # folders of runs are named by the second


def write_dvclive(folder: Path) -> None:
    """One run with plots."""
    from dvclive import Live

    with chdir(folder), Live("dvclive", dvcyaml=None, save_dvc_exp=False, report=None) as live:
        live.log_params({"model": SMALL, "data": {"name": "flowers5"}})
        for value in STEPS:
            live.log_metric("val/acc", value)
            live.next_step()


def write_lightning(folder: Path) -> None:
    """A run of the ``CSVLogger``, with hyperparameters of which one is a tuple."""
    from lightning.pytorch.loggers import CSVLogger

    logger = CSVLogger(folder, name="pets")
    logger.log_hyperparams({"backbone": SMALL, "dataset": "flowers5", "betas": (0.9, 0.99)})
    for step, value in enumerate(STEPS):
        logger.log_metrics({"epoch": step, "train_loss": 0.1}, step=2 * step)
        logger.log_metrics({"epoch": step, "val_acc": value, "val_loss": 1 - value}, step=2 * step + 1)
    logger.log_metrics({"epoch": 3, "test_acc": 0.89}, step=6)
    logger.finalize("success")


def write_trainer(folder: Path) -> None:
    """A Hugging Face Trainer with two checkpoints, its state and its card."""
    import torch
    from transformers import ResNetConfig, ResNetForImageClassification, Trainer, TrainingArguments

    torch.manual_seed(0)
    config = ResNetConfig(embedding_size=4, hidden_sizes=[4], depths=[1], num_labels=2)
    data = [{"pixel_values": torch.randn(3, 16, 16), "labels": i % 2} for i in range(8)]
    with chdir(folder):
        arguments = TrainingArguments(
            "trained",
            num_train_epochs=2,
            eval_strategy="epoch",
            save_strategy="epoch",
            report_to=[],
            use_cpu=True,
        )
        trainer = Trainer(
            ResNetForImageClassification(config),
            arguments,
            train_dataset=data,
            eval_dataset=data,
            compute_metrics=lambda p: {"accuracy": float((p.predictions.argmax(-1) == p.label_ids).mean())},
        )
        trainer.train()
        trainer.save_state()
        trainer.create_model_card(dataset="flowers5", dataset_tags="flowers5", finetuned_from=f"timm/{SMALL}")


def write_timm(folder: Path) -> None:
    """What timm's ``train.py`` writes: its summary, in per cent, and its arguments."""
    import yaml
    from timm.utils import update_summary

    sizes = [224, 224]
    arguments = {"data_dir": "/data/flowers5", "dataset": "", "model": SMALL, "seed": 42}
    text = yaml.safe_dump(arguments | {"input_size": sizes, "img_size": sizes}, default_flow_style=False)
    (folder / "args.yaml").write_text(text)
    for epoch, value in enumerate(STEPS):
        measured = {"loss": 1 - value, "top1": 100 * value, "top5": 100.0}
        update_summary(epoch, {"loss": 0.5}, measured, folder / "summary.csv", lr=0.1)


def write_ultralytics(folder: Path) -> None:
    """A classifier that is trained for two epochs on noise."""
    os.environ |= {"YOLO_OFFLINE": "true", "YOLO_CONFIG_DIR": str(folder)}
    import numpy as np
    from PIL import Image
    from ultralytics import YOLO, settings

    settings.update({"dvc": False, "wandb": False, "mlflow": False})
    noise = np.random.default_rng(0)
    for place in ("train/a", "train/b", "val/a", "val/b"):
        (folder / "flowers5" / place).mkdir(parents=True)
        for i in range(4):
            pixels = noise.integers(0, 255, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "flowers5" / place / f"{i}.png")
    with chdir(folder):
        YOLO("yolo11n-cls.yaml").train(
            data=str(folder / "flowers5"), epochs=2, imgsz=32, batch=4, workers=0, device="cpu", plots=False,
            project=str(folder / "classify"), name="train", amp=False, save=False, verbose=False,
        )  # fmt: skip


def write_search(folder: Path) -> None:
    """The table of a grid search with two scores, of which one is a loss with the other sign."""
    import pandas as pd
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV

    search = GridSearchCV(
        LogisticRegression(), {"C": [0.1, 1.0]}, scoring=["accuracy", "neg_log_loss"], refit=False, cv=3
    )
    pd.DataFrame(search.fit(*load_iris(return_X_y=True)).cv_results_).to_csv(folder / "search.csv")


def write_cards(folder: Path) -> None:
    """A model whose card has an index, and one with ``.eval_results``."""
    import yaml
    from huggingface_hub import (
        EvalResult,
        EvalResultEntry,
        ModelCard,
        ModelCardData,
        eval_result_entries_to_yaml,
    )

    card, evaluated = (folder / "models" / "acme" / "resnet", folder / "models" / "facebook" / "dinov2-small")
    results = [
        EvalResult("image-classification", kind, kind, metric, value)
        for kind, metric, value in (
            ("flowers5", "accuracy", 93.0),
            ("flowers5", "f1", 0.5),
            ("pets", "accuracy", "good"),
        )
    ]
    data = ModelCardData(
        model_name="resnet", eval_results=results, base_model=f"timm/{BEST}", datasets=["flowers5"]
    )
    card.mkdir(parents=True)
    ModelCard(f"---\n{data}\n---\n# resnet\n").save(card / "README.md")
    entries = [
        EvalResultEntry(
            "team/flowers5", "default", 96.5, date="2026-01-15", source_url="https://x.org", source_user="ana"
        ),
        EvalResultEntry("team/many", "flowers5", 0.955),
    ]
    (evaluated / ".eval_results").mkdir(parents=True)
    text = yaml.safe_dump(eval_result_entries_to_yaml(entries))
    (evaluated / ".eval_results" / "flowers5.yaml").write_text(text)


WRITERS: dict[str, Callable[[Path], None]] = {
    "mlflow": write_mlflow,
    "mlruns": write_mlruns,
    "wandb": write_wandb,
    "dvclive": write_dvclive,
    "lightning": write_lightning,
    "trainer": write_trainer,
    "timm": write_timm,
    "ultralytics": write_ultralytics,
    "search": write_search,
    "cards": write_cards,
}
LEFT = {".safetensors", ".bin", ".pt", ".pth", ".png", ".log", ".txt", ".cache", ".py"}
"""Endings of files that are not kept: weights, images and logs."""


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("names", nargs=-1, type=click.Choice(list(WRITERS)))
def main(out: Path, names: tuple[str, ...]) -> None:
    """Write the runs of every tracker into the archive OUT."""
    with (
        tempfile.TemporaryDirectory() as root,
        zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as kept,
    ):
        for name in names or WRITERS:
            (folder := Path(root, name)).mkdir()
            WRITERS[name](folder)
            for path in sorted(folder.rglob("*")):
                if not (path.is_symlink() or path.suffix in LEFT or "artifacts" in path.parts):
                    kept.write(path, path.relative_to(root))
    click.echo(f"{out}: {out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
