"""The part of ``TaskRegistry`` that recommends experts, by results, distances and trials."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Unpack, cast

from registry.answers import Recommendation, Trial
from registry.errors import InvalidQueryError, NotFoundError
from registry.experts.limits import Limits
from registry.index.neighbors import check_k
from registry.ingest import trials as trial_runs
from registry.ingest.data import takes_texts
from registry.ingest.translate import make_settings
from registry.library.base import RegistryBase, heals_index
from registry.options import DataOptions, Progress
from registry.recommend.trial_models import CostModel
from registry.recommend.trials import TrialPlan, Trier, try_experts
from registry.records import Content, ExpertRecord, TaskRecord
from registry.snapshots.view import View

if TYPE_CHECKING:
    from registry.ingest.prepare import TaskEmbedding


class Advice(RegistryBase):
    """The part of ``TaskRegistry`` that recommends experts."""

    @heals_index
    def recommend(
        self,
        query: "str | TaskEmbedding",
        *,
        k: int = 5,
        num_trials: int = 0,
        time_budget: float | None = None,
        stop_below: float | None = None,
        record: bool = False,
        given: Mapping[str, float] | None = None,
        max_params: float | None = None,
        max_flops: float | None = None,
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
            query: Name of a registered task, a data spec, which is embedded and not remembered, or what
                ``embed`` made of one; its data is read again where experts are tried.
            k: Most experts returned, at least 1.
            num_trials: Most experts that are run over a sample of the data, to see how they do.
            time_budget: Most seconds for trials, as far as can be predicted.
            stop_below: Expected improvement, in accuracy, below which no expert is worth a trial.
            record: Whether to store what trials measure on a registered task as results.
            given: Accuracies that you measured on this data, 0 to 1, by expert; nothing of it is stored.
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
        """
        check_k(k)
        plan = TrialPlan(num_trials, time_budget, stop_below, record)
        limits = Limits(max_params, max_flops, input_size, licenses, loadable_offline)
        everyone = self._opened().experts(builtin=self.builtin)
        experts = limits.within(everyone)
        given = given or {}
        _check_given(given, experts, everyone)
        view = self._view([query], probe)
        fitting = [expert for expert in experts if _content_of(expert) == view.space.content]
        _check_content(given, fitting, view)
        task = self._task_of(query, view) if num_trials else None
        trier = self._trier(query, task, plan, options, progress, on_trial) if num_trials else None
        of_trials = trial_runs.SAMPLE_OPTIONS if task or not isinstance(query, str) else frozenset()
        rest = {name: value for name, value in options.items() if name not in of_trials or not num_trials}
        (point,) = self._locate([query], view, cast("DataOptions", rest), progress)
        results = self._opened().results(builtin=self.builtin)
        answer = view.recommend(point, fitting, results, k=k, given=given, trier=trier)
        if experts and not fitting:
            answer = replace(answer, warnings=(_NONE_OF[view.space.content],))
        if task and record:
            self._record(task, answer, options.get("seed") or 0)
        return answer

    def _task_of(self, query: "str | TaskEmbedding", view: View) -> TaskRecord | None:
        """The registered task that is asked about, ``None`` for data and embeddings."""
        is_registered = isinstance(query, str) and self._registered(query, view) is not None
        return self._opened().task(str(query)) if is_registered else None

    def _trier(
        self,
        query: "str | TaskEmbedding",
        task: TaskRecord | None,
        plan: TrialPlan,
        options: DataOptions,
        progress: Progress | None,
        on_trial: Callable[[Trial], None] | None,
    ) -> Trier:
        """What tries experts on the data of the query, as far as ``plan`` says.

        Raises:
            InvalidQueryError: If results are to be stored and cannot be.
        """
        data = task.data if task else query if isinstance(query, str) else query.dataset.spec
        if plan.record and task is None:
            raise InvalidQueryError(
                f"trials on {data} cannot be recorded: results are kept of registered tasks; register it "
                f"with `t2v task add NAME {data}` and ask for NAME"
            )
        if task and plan.record and task.kind != "single_label":
            raise InvalidQueryError(
                f"trials on {task.name} cannot be recorded: accuracy is measured on single-label tasks only, "
                f"and {task.name} is {task.kind}"
            )
        if task:
            how, num_samples = trial_runs.task_options(task, options), task.num_samples
        elif isinstance(query, str):
            how, num_samples = options, None
        else:
            how, num_samples = trial_runs.embedding_options(query, options), query.dataset.num_samples
        num_images = make_settings(**how).max_samples
        if num_samples is not None:
            num_images = min(num_images, num_samples)
        return partial(
            try_experts,
            plan=plan,
            run=trial_runs.open_data(data, progress=progress, **how),
            costs=CostModel(num_images),
            on_trial=on_trial,
            progress=progress,
        )

    def _record(self, task: TaskRecord, answer: Recommendation, seed: int) -> None:
        """Store what was measured in trials."""
        if results := trial_runs.results_of(task, answer.trials, seed):
            self._store.add_results(results)


_NONE_OF: dict[Content, str] = {
    "texts": "there is no text encoder: add one with `t2v expert add hf:./encoder`, or ask for less",
    "images": "there is no expert of images: add one with `t2v expert add LOADER`, or ask for less",
}


def _content_of(expert: ExpertRecord) -> Content:
    return "texts" if takes_texts(expert.loader) else "images"


def _check_content(given: Mapping[str, float], fitting: Sequence[ExpertRecord], view: View) -> None:
    """Check that what a user measured is of experts that take what the task holds.

    Raises:
        InvalidQueryError: If one takes something else.
    """
    if others := sorted(given.keys() - {expert.name for expert in fitting}):
        raise InvalidQueryError(
            f"{others[0]} is given, which does not take {view.space.content}, as tasks here hold; leave it out"
        )


def _check_given(
    given: Mapping[str, float], experts: Sequence[ExpertRecord], everyone: Sequence[ExpertRecord]
) -> None:
    """Check what a user measured.

    Raises:
        NotFoundError: If there is no such expert.
        InvalidQueryError: If an expert is not within the limits, or an accuracy is not from 0 to 1.
    """
    for name, accuracy in given.items():
        if name not in {expert.name for expert in everyone}:
            raise NotFoundError("expert", name, [expert.name for expert in everyone])
        if name not in {expert.name for expert in experts}:
            raise InvalidQueryError(
                f"{name} is given, which is not within the limits; widen them, or leave it out"
            )
        if not 0 <= accuracy <= 1:
            raise InvalidQueryError(f"the accuracy given of {name} must be from 0 to 1, got {accuracy:g}")
