"""The part of ``TaskRegistry`` that keeps results: what was measured here or elsewhere."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from registry.answers import ImportedResults, Measurement
from registry.errors import InvalidQueryError, InvalidRecordError, NotFoundError
from registry.ingest.data import data_spec
from registry.library.identity import Identity
from registry.notebooks import Records
from registry.options import Data, Progress
from registry.records import ResultRecord
from registry.storage.experts import new_results
from registry.storage.store import Store


class Results(Identity):
    """The part of ``TaskRegistry`` that keeps results."""

    def add_result(
        self,
        task: str,
        expert: str,
        *,
        accuracy: float,
        metric: str = "accuracy",
        protocol: str = "unspecified",
        seed: int | None = None,
        source: str = "",
        run_id: str = "",
        lower_is_better: bool | None = None,
        anyway: bool = False,
        as_new_version: bool = False,
    ) -> ResultRecord:
        """Remember a measured score of an expert on a task; one that is there already is not added again.

        Args:
            task: Name of a task, whose latest version is meant, or ``name@version``.
            expert: Name of an expert.
            accuracy: The value of the metric, 0 to 1 for an accuracy.
            metric: What was measured, see ``registry.names``.
            protocol: How it was measured, such as ``linear_probe_20shot`` or ``fine_tuned``.
            seed: Seed of the measurement.
            source: Who measured it.
            run_id: Id of the run that measured it; the same run is kept once.
            lower_is_better: Which way the metric goes, for one that is not known.
            anyway: Keep the result where data or weights are at hand and not what was registered, marked as of
                others: it does not count for this task or expert.
            as_new_version: Register data that is not what was registered as the next version, and keep the
                result of that one.

        Raises:
            NotFoundError: If the task or the expert is not registered.
            InvalidRecordError: If the value is out of the range of the metric, it is not known which way the
                metric goes, the value contradicts another of the same seed, or the data or the weights changed.
        """
        store = self._made_for(task, expert)
        record = store.expert(expert)
        named, version = self._subject(task, measured=False, anyway=anyway, as_new_version=as_new_version)
        result = ResultRecord(
            named.name,
            record.name,
            accuracy,
            metric,
            protocol,
            seed,
            source,
            lower_is_better=lower_is_better,
            task_version=version,
            weights_hash=self._check_weights(record, None, anyway=anyway),
            run_id=run_id,
        )
        new = store.add_results([result])
        return new[0] if new else result

    def import_results(
        self,
        path: str | Path,
        *,
        skip_bad: bool = False,
        unregistered: bool = False,
        dry_run: bool = False,
        anyway: bool = False,
        as_new_version: bool = False,
        **rules: Any,
    ) -> ImportedResults:
        """Remember the results of a CSV file, or of what a tracker of experiments wrote.

        What is there is not added again; a run counts once, by its id. A result that names no version of its
        task is of the latest one. For the columns of a CSV file see ``registry.ingest.tables``, for trackers
        ``registry.trackers.places``.

        Args:
            path: The CSV file; or a file or folder of MLflow, Weights & Biases, Lightning or others.
            skip_bad: Take the good rows of the file and leave the bad ones; without it, all or none. Runs of
                a tracker that cannot count are always left out and reported.
            unregistered: Take results on tasks and of experts that are not registered too. Such tasks have no
                data: they are never neighbours, but say how experts compare.
            dry_run: Write nothing, and answer what would be added.
            anyway: As of ``add_result``.
            as_new_version: As of ``add_result``.
            rules: For trackers: ``task_from``, ``expert_from``, ``metric``, ``protocol``, ``step``, or
                ``file``, a TOML file of them; see ``registry.trackers.rules``.

        Returns:
            How many were new, and a sentence for every cause of rows or runs that were not taken.

        Raises:
            InvalidRecordError: If the file is bad, a row is and ``skip_bad`` is not set, a result contradicts
                another of the same seed, data or weights are not what was registered, or no run of a tracker
                can count; every cause is named.
            InvalidQueryError: If a rule is not of its form, or the file has no use for it.
        """
        from registry.ingest.tables import read_results
        from registry.trackers.places import RECOGNISED, is_recognised, read_place
        from registry.trackers.plan import Names, plan_results
        from registry.trackers.rules import make_rules

        place = Path(str(path).removeprefix("sqlite:///").removeprefix("file:"))
        store = self._opened() if dry_run else self._create_if_missing()
        runs, taken = 0, list[str]()
        if place.is_dir() or is_recognised(place):
            checked = make_rules(**rules)
            read = read_place(place)
            experts = store.experts()
            names = Names(store.task_names(), experts, checked.names)
            plan = plan_results(read, checked, names, unregistered=unregistered)
            results, problems = plan.results, plan.problems(place)
            runs, taken = len(read), plan.said(read, {expert.name for expert in experts})
            failed = not results
        elif rules:
            raise InvalidQueryError(
                f"{place}: rules are for what a tracker wrote, expected {RECOGNISED}; a CSV file of results "
                "has columns instead, such as protocol"
            )
        else:
            check = self._result_check() if not unregistered else lambda result: None
            results, problems = read_results(place, check)
            failed = bool(problems) and not skip_bad
        if failed:
            raise InvalidRecordError("; ".join(problems))
        if dry_run:
            new = new_results(results, store.results())
        else:
            new = store.add_results(self._compared(results, anyway=anyway, as_new_version=as_new_version))
        return ImportedResults(new, problems, len(results) - len(new), runs or len(results), taken)

    def results(self, *, task: str | None = None, expert: str | None = None) -> Records[ResultRecord]:
        """Every result, of one task or expert if asked for."""
        return Records(self._opened().results(task=task, expert=expert, builtin=self.builtin))

    def measure(
        self,
        task: Data,
        expert: str,
        *,
        data: Data | None = None,
        seed: int = 0,
        device: str = "auto",
        record: bool = True,
        anyway: bool = False,
        as_new_version: bool = False,
        progress: Progress | None = None,
    ) -> Measurement:
        """Load an expert, measure its linear-probe accuracy on a registered task, and remember the result.

        Args:
            task: Name of a task, or ``name@version``, whose data is still what was registered; or data that is
                not registered, other than by a data spec: it is measured on, and nothing is stored.
            expert: Name of an expert, whose weights are still what was registered, if they were ever read.
            data: The data of the task, if it is not where it was registered from, as data that a program held.
            seed: Seed of the sample and the draws.
            device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
            record: Whether to store the result.
            anyway: Measure other data or weights than were registered, and mark the result as of others.
            as_new_version: Register other data as the next version of the task, and measure on that.
            progress: Called as ``progress(stage, done, total)``.

        Raises:
            NotFoundError: If there is no such task or expert.
            IngestError: If the data or the weights cannot be read; the images of starter tasks do not ship.
            InvalidRecordError: If the data or the weights are not those that were registered.
        """
        from registry.ingest.networks import measure_expert, with_data

        if not isinstance(task, str):
            return self._measure_on(data_spec(task), expert, seed=seed, device=device, progress=progress)
        store = self._opened()
        registered = store.expert(expert)
        if data is not None:
            named = with_data(store.task(task), data_spec(data))
            version = named.version
        else:
            named, version = self._subject(
                task, measured=True, anyway=anyway, as_new_version=as_new_version, progress=progress
            )
        with self._opening("expert", registered.name, registered.loader):
            measured = measure_expert(registered.loader, named, seed=seed, device=device, progress=progress)
        weights_hash = self._check_weights(registered, measured.weights_hash, anyway=anyway)
        if record:
            store.hold_weights({registered.name: weights_hash})
            result = ResultRecord(
                named.name,
                registered.name,
                measured.accuracy,
                protocol=measured.protocol,
                seed=seed,
                source="t2v result measure",
                task_version=version,
                weights_hash=weights_hash,
            )
            store.add_results([result])
        return Measurement(
            named.name,
            registered.name,
            measured.accuracy,
            measured.deviation,
            measured.protocol,
            record,
            task_version=version,
            weights_hash=weights_hash,
        )

    def _measure_on(self, data: str, expert: str, **how: Any) -> Measurement:
        """Measure an expert on data that is not registered."""
        from registry.ingest.networks import measure_on_data

        loader = self._opened().expert(expert).loader
        with self._opening("expert", expert, loader):
            measured = measure_on_data(loader, data, **how)
        return Measurement(
            data, expert, measured.accuracy, measured.deviation, measured.protocol, recorded=False
        )

    def _made_for(self, task: str, expert: str) -> Store:
        """The store; of a registry that is not there yet, if the starter content has what is named.

        Raises:
            NotFoundError: If it has not; then none is made.
        """
        if not self._store.exists:
            from registry.builtin.starter import load_starter

            starter = load_starter()
            for kind, name, records in (
                ("task", task.partition("@")[0], starter.tasks),
                ("expert", expert, starter.experts),
            ):
                if name not in (names := [record.name for record in records]):
                    raise NotFoundError(kind, name, names)
        return self._create_if_missing()

    def _result_check(self) -> Callable[[ResultRecord], None]:
        """A check that raises ``NotFoundError`` for a result of a task or expert that is not registered."""
        store = self._opened()
        registered = {"task": store.task_names(), "expert": {expert.name for expert in store.experts()}}

        def check(result: ResultRecord) -> None:
            for kind, names in registered.items():
                if getattr(result, kind) not in names:
                    raise NotFoundError(kind, getattr(result, kind), names)

        return check
