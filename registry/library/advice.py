"""The part of ``TaskRegistry`` that recommends experts, by results, distances and trials."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Unpack, cast

from registry.answers import (
    Baseline,
    EvidenceNeighbor,
    Origin,
    Query,
    Recommendation,
    RecommendedExpert,
    Trial,
)
from registry.answers import Evidence as ShownEvidence
from registry.errors import InvalidQueryError
from registry.index.neighbors import check_k
from registry.ingest.data import is_inert
from registry.library.base import heals_index
from registry.library.candidates import choose_candidates, under_one_name, why_none
from registry.library.identity import Identity
from registry.notebooks import Records
from registry.options import Data, DataOptions, Progress, Size, read_size
from registry.records import ExpertRecord, ResultRecord, TaskRecord
from registry.snapshots.view import Point, View
from registry.storage.rows import read_origins
from registry.task_answers import TransferScore

if TYPE_CHECKING:
    from registry.ingest import trials as trial_runs
    from registry.ingest.prepare import TaskEmbedding
    from registry.library.evidence import Evidence
    from registry.recommend.recommend import Answer, Trier


class Advice(Identity):
    """The part of ``TaskRegistry`` that recommends experts."""

    @heals_index
    def recommend(
        self,
        query: Data,
        *,
        k: int = 5,
        protocol: str | None = None,
        metric: str | None = None,
        num_trials: int = 0,
        time_budget: float | None = None,
        stop_below: float | None = None,
        record: bool = False,
        anyway: bool = False,
        as_new_version: bool = False,
        download: bool = False,
        given: Mapping[str, float] | None = None,
        experts: Sequence[str] = (),
        toys: bool = False,
        published: bool = True,
        max_params: Size | None = None,
        max_flops: Size | None = None,
        licenses: Sequence[str] = (),
        input_size: float | None = None,
        loadable_offline: bool = False,
        probe: str | None = None,
        progress: Progress | None = None,
        on_trial: Callable[[Trial], None] | None = None,
        **options: Unpack[DataOptions],
    ) -> Recommendation:
        """The experts to start from for a task, with expected accuracy, interval, evidence and baselines.

        Args:
            query: Name of a registered task, data, which is embedded and not remembered, or what
                ``embed`` made of one; its data is read again where experts are tried.
            k: Most experts returned, at least 1.
            protocol: How the accuracy that is expected would be measured, such as ``fine_tuned``; by default as
                most of your own results were, else as starter content was.
            metric: What is expected; by default the one that was measured most by that protocol.
            num_trials: Most experts that are run over a sample of the data, to see how they do.
            time_budget: Most seconds for trials, as far as can be predicted.
            stop_below: Expected improvement, in accuracy, below which no expert is worth a trial.
            record: Whether to store what trials measure on a registered task as results.
            anyway: Whether to try experts on data, and with weights, that are not what was registered; what is
                stored of that is marked as of others.
            as_new_version: Whether to register such data as the next version first, and ask about that.
            download: Whether trials may fetch weights that are not on this machine.
            given: Accuracies that you measured on this data, 0 to 1, by expert; nothing of it is stored.
            experts: Only experts whose name or alias matches one of these patterns, such as ``convnext*``.
            toys: Whether the small networks of this package may be recommended to those who have other experts.
            published: Whether published results and experts count as evidence, beside those of the registry.
            max_params: Only experts known to have at most so many parameters.
            max_flops: Only experts known to need at most so many multiply-adds for one image.
            licenses: Only experts under one of these SPDX identifiers.
            input_size: Only experts known to take images of at most so many pixels on a side.
            loadable_offline: Only experts whose weights are on this machine: those that ship with this package,
                files that are there, and what torch's hub and Hugging Face have in their caches.
            probe: Loader of the probe, or id of the space, in which to compare; for an embedding its own.
            progress: Called as ``progress(stage, done, total)`` while data is embedded and experts are tried.
            on_trial: Called after each trial.
            **options: How data is read, see ``nearest``. For a registered task or an embedding ``max_samples``,
                ``seed``, ``batch_size`` and ``device`` may be said of its trials.

        Raises:
            InvalidQueryError: If a number is out of its range, or something is asked that changes nothing.
            NotFoundError: If there is no such task, data, probe or expert.
            IngestError: If the data cannot be read.
            InvalidRecordError: If experts are to be tried on a task whose data is not what was registered.
        """
        from registry.experts.limits import Limits
        from registry.ingest import trials as trial_runs
        from registry.library.evidence import gather_evidence
        from registry.recommend.trials import TrialPlan

        check_k(k)
        query = self._asked(query)
        plan = TrialPlan(num_trials, time_budget, stop_below)
        if not num_trials:
            _check_needs_no_trials(record=record, other_data=anyway or as_new_version)
        limits = Limits(
            read_size("max_params", max_params),
            read_size("max_flops", max_flops),
            read_size("input_size", input_size),
            licenses,
            loadable_offline,
            experts,
        )
        view = self._view([query], probe)
        subject = None
        if num_trials and isinstance(query, str) and self._registered(query, view) is not None:
            subject = self._subject(
                query, measured=True, anyway=anyway, as_new_version=as_new_version, progress=progress
            )
            if as_new_version:
                query = f"{subject.task.name}@{subject.task.version}"
                view = self._view([query], probe)
        task = subject.task if subject else None
        results = self._opened().results(builtin=self.builtin)
        own = self._measured_by_user(query, view, results)
        everyone = self._opened().experts(builtin=self.builtin)
        fitting, candidates, left_out = choose_candidates(
            everyone, view.space.content, limits, own, given or {}, toys=toys
        )
        how = self._how_to_read(query, task, options, record=record) if num_trials else None
        of_trials = trial_runs.SAMPLE_OPTIONS if task or not isinstance(query, str) else frozenset()
        rest = {name: value for name, value in options.items() if name not in of_trials or not num_trials}
        (point,) = self._locate([query], view, cast("DataOptions", rest), progress)
        if not candidates:
            return Recommendation(point.query, (), {}, (why_none(view.space.content, left_out),))
        latest = view.latest_versions()
        evidence = gather_evidence(
            fitting,
            results,
            content=view.space.content,
            latest=latest,
            published=published,
            removed=self._opened().removed_weights(),
            metric=metric,
            protocol=protocol,
        )
        names = under_one_name(candidates, evidence.alias)
        left_out["same weights"] = len(candidates) - len(names)
        origins, trials = read_origins(self._store.database), None
        if how:
            trials = trial_runs.Trials(
                names, how, plan, evidence.way, download, progress, on_trial, origins, anyway
            )
        ranked = self._ask(view, point, evidence, names, given or {}, latest, k, trials, left_out)
        if subject and record and trials:
            self._store.hold_weights(trials.weights)
            self._store.add_results(trials.results(*subject, options.get("seed") or 0))
        answered = _as_recommendation(point.query, ranked, names, trials, origins)
        notes = (_TRIED_ON_OTHERS,) if subject and subject.is_other_data else ()
        return replace(answered, warnings=(*answered.warnings, *evidence.warnings, *notes))

    def score(
        self, query: Data, expert: str, *, progress: Progress | None = None, **options: Unpack[DataOptions]
    ) -> Records[TransferScore]:
        """Transferability scores of an expert, from one pass over a sample; nothing is fine-tuned or kept.

        Args:
            query: Name of a registered task, or data.
            expert: Name of an expert.
            progress: Called as ``progress(stage, done, total)``.
            **options: As of ``recommend``.

        Raises:
            NotFoundError: If there is no such task, data or expert.
            IngestError: If the data or the expert cannot be read.
            InvalidRecordError: If data or weights are not what was registered.
        """
        from registry.ingest.trials import score_expert

        record, query = self._opened().expert(expert), self._asked(query)
        task = None
        if isinstance(query, str) and self._registered(query, self._view([query], None)) is not None:
            task = self._subject(
                query, measured=True, anyway=False, as_new_version=False, progress=progress
            ).task
        reading = self._how_to_read(query, task, options, record=False)
        with self._opening("expert", record.name, record.loader):
            return Records(score_expert(record, reading, progress))

    def _ask(
        self,
        view: View,
        point: Point,
        evidence: "Evidence",
        names: Mapping[str, ExpertRecord],
        given: Mapping[str, float],
        latest: Mapping[str, int],
        k: int,
        trier: "Trier | None",
        left_out: Mapping[str, int],
    ) -> "Answer":
        """Ask the model of past results."""
        from registry.library.evidence import Measured, versioned
        from registry.library.kept_priors import KeptPriors
        from registry.recommend.recommend import Asking, answer

        metric, protocol = evidence.way
        asked = versioned(point.query.task, point.query.version, latest)
        own = [
            Measured(asked, evidence.alias.get(name, name), metric, protocol, accuracy, None)
            for name, accuracy in given.items()
        ]
        replaced = {row.expert for row in own}
        results = [
            *own,
            *(
                row
                for row in evidence.results
                if not (row.task == asked and row[2:4] == evidence.way and row.expert in replaced)
            ),
        ]
        tasks = {row.task for row in results} | {expert.source_task for expert in evidence.experts}
        descriptors, facts = view.likeness(point, tasks)
        database = self._store.database
        return answer(
            Asking(asked, point.query.version > 0 or bool(given), view.facts(point), protocol, metric),
            evidence.experts,
            results,
            tasks=facts,
            descriptors=descriptors,
            candidates=names,
            alias=evidence.alias,
            k=k,
            trier=trier,
            left_out=left_out,
            files=KeptPriors(database.place.cache_folder(database.registry_id())),
        )

    def _measured_by_user(
        self, query: "str | TaskEmbedding", view: View, results: Sequence[ResultRecord]
    ) -> set[str]:
        """Experts that the user measured on the registered task that is asked about."""
        position = self._registered(query, view) if isinstance(query, str) else None
        if position is None:
            return set()
        name, version = view.snapshot.catalogue.key(position)
        return {
            result.expert
            for result in results
            if result.task == name and result.task_version in {0, version} and not result.builtin
        }

    def _how_to_read(
        self, query: "str | TaskEmbedding", task: TaskRecord | None, options: DataOptions, *, record: bool
    ) -> "trial_runs.Reading":
        """The data that trials run over, and how it is read.

        Raises:
            InvalidQueryError: If results are to be stored and cannot be.
        """
        from registry.ingest import trials as trial_runs

        data = task.data if task else query if isinstance(query, str) else query.dataset.spec
        if record and task is None:
            raise InvalidQueryError(
                f"trials on {data} cannot be recorded: results are kept of registered tasks; register it "
                f"with `t2v task add NAME {data}` and ask for NAME"
            )
        if task and record and task.kind != "single_label":
            raise InvalidQueryError(
                f"trials on {task.name} cannot be recorded: accuracy is measured on single-label tasks only, "
                f"and {task.name} is {task.kind}"
            )
        if task:
            return trial_runs.Reading(data, trial_runs.task_options(task, options), task.num_samples)
        if isinstance(query, str):
            return trial_runs.Reading(data, options)
        return trial_runs.Reading(data, trial_runs.embedding_options(query, options), query.dataset.num_samples)


_TRIED_ON_OTHERS = "experts were tried on data that is not what was registered, as was asked for"


def _as_recommendation(
    query: Query,
    found: "Answer",
    names: Mapping[str, ExpertRecord],
    trials: "trial_runs.Trials | None",
    origins: Mapping[tuple[str, str], Origin],
) -> Recommendation:
    """An answer of the model as the registry gives it."""
    tried = trials.by_expert() if trials else {}
    metric, protocol = found.way
    return Recommendation(
        query,
        tuple(
            RecommendedExpert(
                rank=line.rank,
                expert=names[line.expert].name,
                expected_accuracy=line.expected_accuracy,
                interval=line.interval,
                expected_regret=line.expected_regret,
                num_params=names[line.expert].num_params,
                license=names[line.expert].license,
                load=load_line(names[line.expert], origins.get(("expert", names[line.expert].name))),
                evidence=ShownEvidence(
                    tuple(EvidenceNeighbor(*neighbor) for neighbor in line.neighbors),
                    line.num_results,
                    tried.get(line.expert),
                ),
                measured=line.measured,
            )
            for line in found.ranked
        ),
        {rule: Baseline(expert, accuracy) for rule, (expert, accuracy) in found.baselines.items()},
        found.warnings,
        tuple(trials.trials) if trials else (),
        verdict=found.verdict,
        metric=metric,
        protocol=protocol,
    )


def load_line(expert: ExpertRecord, origin: Origin | None) -> str:
    """One line of Python that loads the expert, or that says why it is not to be loaded."""
    if is_inert(expert.loader, origin):
        return f"# an import brought {expert.name}: look at it, then `t2v trust {expert.name}`"
    return f"from indexer import load_expert; network = load_expert({json.dumps(expert.loader)})"


def _check_needs_no_trials(*, record: bool, other_data: bool) -> None:
    """Refuse what changes nothing unless experts are tried; ``InvalidQueryError`` if any of it is asked for."""
    if record:
        raise InvalidQueryError("record would change nothing without trials; say how many to make")
    if other_data:
        raise InvalidQueryError(
            "anyway and as_new_version would change nothing without trials, which alone read data; say how "
            "many to make"
        )
