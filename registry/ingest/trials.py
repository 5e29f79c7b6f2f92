"""Run experts over a sample of data: the door from trials to ``indexer``, which is imported inside functions.

Axes: N samples.
"""

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Unpack, cast

from registry.answers import Trial
from registry.errors import IngestError, RegistryError
from registry.ingest.data import READING_SETTINGS, check_data_is_there, reading_options
from registry.ingest.translate import make_settings, translated_errors
from registry.options import DataOptions, Progress
from registry.recommend.trials import TrialFailedError, TrialRun
from registry.records import ExpertRecord, ResultRecord, TaskRecord

if TYPE_CHECKING:
    from indexer.experts.trials import TrialFeatures
    from registry.ingest.prepare import TaskEmbedding

SCORES = ("logme", "linear_probe", "knn")
"""Which transferability scores a trial computes."""
SOURCE = "t2v recommend --try"
"""Source of the results that trials record."""
SAMPLE_OPTIONS = frozenset({"max_samples", "seed", "batch_size", "device"})
"""What may be said about trials on what is embedded already; the rest is said by how that was done."""


def task_options(task: TaskRecord, options: DataOptions) -> DataOptions:
    """How trials on a registered task read its data: as it was read when it was registered.

    Raises:
        IngestError: If the data did not ship, or is not where it was.
    """
    check_data_is_there(task)
    said = {name: value for name, value in options.items() if name in SAMPLE_OPTIONS}
    return cast("DataOptions", said | reading_options(task))


def embedding_options(embedding: "TaskEmbedding", options: DataOptions) -> DataOptions:
    """How trials on data that was just embedded read it: the same sample, unless options say otherwise."""
    done = {name: getattr(embedding.settings, name) for name in ("max_samples", "seed", *READING_SETTINGS)}
    said = {name: value for name, value in options.items() if name in SAMPLE_OPTIONS and value is not None}
    return cast("DataOptions", done | said)


def open_data(
    data: str, *, progress: Progress | None = None, **options: Unpack[DataOptions]
) -> Callable[[ExpertRecord], TrialRun]:
    """What runs experts over a class-balanced sample, the same for all of them.

    Args:
        data: A data spec.
        progress: Called as ``progress(stage, done, total)``.
        **options: How it is read and computed with.

    Raises:
        IngestError: If an option is out of its range.
    """
    settings = make_settings(**options)
    with translated_errors():
        from indexer.experts.trials import TrialData

        sample = TrialData(data, settings)

    def run(expert: ExpertRecord) -> TrialRun:
        from indexer.errors import DataError, IndexerError

        try:
            featured = sample.features(expert.loader, progress)
        except DataError as err:
            if not sample.was_read:  # which would stop every expert
                raise IngestError(str(err)) from err
            raise TrialFailedError(str(err)) from err
        except IndexerError as err:
            raise TrialFailedError(str(err)) from err
        start = time.perf_counter()
        scores = _scores_of(featured)
        accuracy, caution = _accuracy_of(featured, settings.seed)
        spent = featured.feature_seconds
        return TrialRun(
            scores,
            accuracy,
            num_images=len(featured.labels),
            loading_seconds=featured.loading_seconds,
            feature_seconds=None if spent is None else spent + time.perf_counter() - start,
            caution=caution,
        )

    return run


def _scores_of(featured: "TrialFeatures") -> dict[str, float]:
    """Transferability scores by name.

    Raises:
        TrialFailedError: If they cannot be computed, whatever it was.
    """
    from registry.recommend.scores import score

    try:
        return {name: score(name, featured.features, featured.labels, kind=featured.kind) for name in SCORES}
    except RegistryError as err:
        raise TrialFailedError(str(err)) from err
    except Exception as err:  # features of any network come here, and one must not lose the trials of others
        raise TrialFailedError(f"its features cannot be scored ({type(err).__name__}: {err})") from err


def _accuracy_of(featured: "TrialFeatures", seed: int) -> tuple[float | None, str]:
    """Few-shot accuracy of single-label tasks; or why there is none."""
    from indexer.errors import IndexerError
    from indexer.experts.few_shot import score_features

    if featured.kind != "single_label":
        return None, ""
    try:
        return score_features(featured.features, featured.labels, seed).accuracy, ""
    except IndexerError as err:
        return None, f"no accuracy was measured, its scores count ({err})"
    except Exception as err:  # as for its scores
        return None, f"no accuracy was measured, its scores count ({type(err).__name__}: {err})"


def results_of(task: TaskRecord, trials: Sequence[Trial], seed: int) -> list[ResultRecord]:
    """What trials on a registered task measured, as results."""
    from indexer.experts.few_shot import PROTOCOL

    return [
        ResultRecord(task.name, trial.expert, trial.found.accuracy, protocol=PROTOCOL, seed=seed, source=SOURCE)
        for trial in trials
        if trial.found.accuracy is not None
    ]
