"""Run experts over a sample of data: the door from trials to ``indexer``, which is imported inside functions.

Axes: N samples.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from registry.answers import Origin, Trial, TrialScores
from registry.errors import IngestError, InvalidRecordError, RegistryError
from registry.ingest.data import (
    READING_SETTINGS,
    check_data_is_there,
    is_inert,
    is_loadable_offline,
    make_settings,
    opening,
    reading_options,
    translated_errors,
)
from registry.ingest.identity import changed_weights_message, weights_difference
from registry.options import DataOptions, Progress
from registry.recommend.prediction import Prediction, condition
from registry.recommend.results import Way
from registry.recommend.trial_costs import CostModel
from registry.recommend.trials import (
    TRIAL_SD,
    TrialEvidence,
    TrialFailedError,
    TrialOutcome,
    TrialPlan,
    try_experts,
)
from registry.records import ExpertRecord, ResultRecord, TaskRecord
from registry.task_answers import TransferScore
from registry.wording import describe_way

if TYPE_CHECKING:
    from indexer.experts.trials import TrialFeatures
    from registry.ingest.prepare import TaskEmbedding

SCORES = ("linear_probe", "knn")
"""Which transferability scores a trial computes where labels are no single classes."""
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


@dataclass(frozen=True)
class Reading:
    """The data that experts are tried on, how it is read, and how many samples it has if that is known."""

    data: str
    options: DataOptions
    num_samples: int | None = None


class Trials:
    """Runs experts over one class-balanced sample, and keeps what that gave; a ``recommend.Trier``.

    Args:
        experts: Candidates by the name under which they count.
        reading: The data, and how it is read.
        plan: When to stop.
        way: Metric and protocol of the answer.
        download: Whether weights that are not on this machine may be fetched.
        progress: Called as ``progress(stage, done, total)``.
        on_trial: Called after each trial.
        origins: Where experts came from, by kind and name; what is not trusted is not tried.
        anyway: Whether experts are tried whose weights are not what was registered.

    Attributes:
        weights: Hash of the weights of each expert that was loaded, by name.

    Raises:
        IngestError: If an option is out of its range.
    """

    def __init__(
        self,
        experts: Mapping[str, ExpertRecord],
        reading: Reading,
        plan: TrialPlan,
        way: Way,
        download: bool = False,
        progress: Progress | None = None,
        on_trial: Callable[[Trial], None] | None = None,
        origins: Mapping[tuple[str, str], Origin] = MappingProxyType({}),
        anyway: bool = False,
    ) -> None:
        self.trials: list[Trial] = []
        self.weights: dict[str, str] = {}
        self._experts, self._plan, self._download, self._anyway = experts, plan, download, anyway
        self._progress, self._on_trial, self._origins = progress, on_trial, origins
        self._settings = make_settings(**reading.options)
        with translated_errors():
            from indexer.experts.few_shot import PROTOCOL
            from indexer.experts.trials import TrialData

            self._sample = TrialData(reading.data, self._settings)
        self._way = ("accuracy", PROTOCOL)
        self._asked = way
        self._probes: Prediction | None = None
        num_images = self._settings.max_samples
        if reading.num_samples is not None:
            num_images = min(num_images, reading.num_samples)
        self._costs = CostModel(num_images)
        self._cautions: list[str] = []

    def __call__(
        self,
        names: Sequence[str],
        prediction: Prediction,
        untried: NDArray[np.bool_],
        expect: Callable[[Way], Prediction],
    ) -> TrialOutcome:
        """Try experts, the most promising first, and fold in what that gives."""
        if not self._is_asked:  # a trial is compared with what is expected of a trial
            self._probes = expect(self._way)
        experts = [self._experts[name] for name in names]
        inert = np.array([is_inert(expert.loader, self._origin(expert)) for expert in experts])
        at_hand = np.array([self._download or _is_at_hand(expert) for expert in experts]) & ~inert
        absent, untrusted = int((untried & ~at_hand & ~inert).sum()), int((untried & inert).sum())

        def run(place: int) -> TrialEvidence:
            return self._try(place, experts[place])

        outcome = try_experts(
            names,
            prediction,
            untried & at_hand,
            plan=self._plan,
            run=run,
            seconds=lambda: self._costs.predict(experts),
            on_trial=self._tell,
        )
        del self.trials[len(outcome.evidence) :]  # one that was interrupted as it ended does not count
        notes = [*self._cautions]
        if self.trials and not self._says_how_well:
            notes.append(self._scores_only)
        if absent:
            one = "1 expert was" if absent == 1 else f"{absent} experts were"
            notes.append(f"{one} not tried, as the weights are not on this machine; download=True fetches them")
        if untrusted:
            one = "1 expert was" if untrusted == 1 else f"{untrusted} experts were"
            notes.append(f"{one} not tried, as an import brought paths or code: `t2v trust` lists them")
        return replace(outcome, warnings=(*outcome.warnings, *notes))

    def _origin(self, expert: ExpertRecord) -> Origin | None:
        return self._origins.get(("expert", expert.name))

    def by_expert(self) -> dict[str, TrialScores]:
        """What trials gave, by the name under which an expert counts."""
        counting = {expert.name: name for name, expert in self._experts.items()}
        return {counting[trial.expert]: trial.found for trial in self.trials}

    def results(self, task: TaskRecord, version: int, seed: int) -> list[ResultRecord]:
        """What trials on a registered task measured, as results of a version."""
        from indexer.experts.few_shot import PROTOCOL

        return [
            ResultRecord(
                task.name,
                trial.expert,
                trial.found.accuracy,
                protocol=PROTOCOL,
                seed=seed,
                source=SOURCE,
                task_version=version,
                weights_hash=self.weights[trial.expert],
            )
            for trial in self.trials
            if trial.found.accuracy is not None
        ]

    def _tell(self, trial: TrialEvidence, expected: tuple[float, float]) -> None:
        """Complete the last trial with what was expected of it, and report it."""
        accuracy, gain = expected
        measured = self.trials[-1].found.accuracy
        if self._probes and measured is not None:
            accuracy = float(self._probes.mean[trial.place])
            observed = np.full(len(self._probes.logit), np.nan)
            observed[trial.place] = measured
            self._probes = condition(self._probes, observed, trial.sd)
        self.trials[-1] = replace(self.trials[-1], expected_accuracy=accuracy, expected_improvement=gain)
        if self._progress:
            self._progress("trials", len(self.trials), self._plan.num_trials)
        if self._on_trial:
            self._on_trial(self.trials[-1])

    @property
    def _is_asked(self) -> bool:
        """Whether trials measure what the answer is about."""
        return self._asked == self._way

    @property
    def _says_how_well(self) -> bool:
        """Whether trials measure what the answer is about, rather than only compare the experts tried."""
        return self._is_asked and any(trial.found.accuracy is not None for trial in self.trials)

    @property
    def _scores_only(self) -> str:
        """What trials are worth that do not measure what is asked."""
        if all(trial.found.accuracy is None for trial in self.trials):
            reason = "trials of tasks with several labels or numbers to predict give scores only"
            return f"{reason}: they compare the experts tried, and say nothing of how well these do"
        tried, asked = describe_way(self._way), describe_way(self._asked)
        one = "; one expert compares with none" if len(self.trials) == 1 else ""
        return (
            f"what was expected and found in trials is {tried}; of {asked} that says which of the experts "
            f"tried is better, not how good it is{one}"
        )

    def _try(self, place: int, expert: ExpertRecord) -> TrialEvidence:
        """Run one expert.

        Raises:
            TrialFailedError: If that cannot be done, or its weights are not what was registered.
            IngestError: If the data cannot be read, which would stop every expert.
        """
        start = time.monotonic()
        featured = self._features(expert)
        self.weights[expert.name] = featured.weights_hash
        if (difference := weights_difference(expert, featured.weights_hash)) and not self._anyway:
            raise TrialFailedError(changed_weights_message(expert, difference))
        begun = time.perf_counter()
        scores = _scores_of(featured)
        accuracy, error, caution = _accuracy_of(featured, self._settings.seed)
        self._costs = self._costs.learn(
            expert,
            num_images=len(featured.labels),
            loading_seconds=featured.loading_seconds,
            feature_seconds=None
            if featured.feature_seconds is None
            else featured.feature_seconds + time.perf_counter() - begun,
        )
        if caution:
            self._cautions.append(f"{expert.name}: {caution}")
        scored = TrialScores(scores, accuracy, time.monotonic() - start)
        self.trials.append(Trial(expert.name, 0.0, 0.0, scored))
        return TrialEvidence(place, accuracy if self._is_asked else None, error, scores)

    def _features(self, expert: ExpertRecord) -> "TrialFeatures":
        """Features of the sample.

        Raises:
            TrialFailedError: If the expert cannot be loaded or run.
            IngestError: If the data cannot be read.
        """
        from indexer.errors import DataError, IndexerError

        try:
            with opening("expert", expert.name, expert.loader, self._origin(expert)):
                return self._sample.features(expert.loader, self._progress)
        except DataError as err:
            if not self._sample.was_read:
                raise IngestError(str(err)) from err
            raise TrialFailedError(str(err)) from err
        except IndexerError as err:
            raise TrialFailedError(str(err)) from err


def score_expert(expert: ExpertRecord, reading: Reading, progress: Progress | None) -> list[TransferScore]:
    """Every transferability score that is defined for the data and what the expert has.

    Raises:
        IngestError: If the data or the expert cannot be read.
        InvalidRecordError: If its weights are not what was registered.
    """
    from registry.scores.scores import list_scores, score

    with translated_errors():
        from indexer.experts.trials import TrialData, source_logits

        featured = TrialData(reading.data, make_settings(**reading.options)).features(expert.loader, progress)
        logits = source_logits(expert.loader, featured.features)
    if difference := weights_difference(expert, featured.weights_hash):
        raise InvalidRecordError(changed_weights_message(expert, difference))
    seed = reading.options.get("seed") or 0
    return [
        TransferScore(
            it.name,
            score(it.name, featured.features, featured.labels, logits=logits, kind=featured.kind, seed=seed),
            it.summary,
        )
        for it in list_scores(featured.kind, source_head=logits is not None)
    ]


def _is_at_hand(expert: ExpertRecord) -> bool:
    """Whether trying an expert fetches nothing: a file that is gone is told when that is found."""
    return "@" in expert.loader or is_loadable_offline(expert)


def _scores_of(featured: "TrialFeatures") -> dict[str, float]:
    """Transferability scores by name; ``TrialFailedError`` if they cannot be computed, whatever it was."""
    from registry.scores.scores import score
    from registry.scores.trial_scores import trial_scores

    try:
        if featured.kind == "single_label":
            return trial_scores(featured.features, featured.labels)
        return {name: score(name, featured.features, featured.labels, kind=featured.kind) for name in SCORES}
    except RegistryError as err:
        raise TrialFailedError(str(err)) from err
    except Exception as err:  # features of any network come here, and one must not lose the trials of others
        raise TrialFailedError(f"its features cannot be scored ({type(err).__name__}: {err})") from err


def _accuracy_of(featured: "TrialFeatures", seed: int) -> tuple[float | None, float, str]:
    """Few-shot accuracy of single-label tasks and its standard error; or why there is none."""
    from indexer.errors import IndexerError
    from indexer.experts.few_shot import score_features

    if featured.kind != "single_label":
        return None, TRIAL_SD, ""
    try:
        measured = score_features(featured.features, featured.labels, seed)
    except IndexerError as err:
        return None, TRIAL_SD, f"no accuracy was measured, its scores count ({err})"
    except Exception as err:  # as for its scores
        return None, TRIAL_SD, f"no accuracy was measured, its scores count ({type(err).__name__}: {err})"
    return measured.accuracy, measured.standard_error, ""
