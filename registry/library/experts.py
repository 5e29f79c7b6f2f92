"""The part of ``TaskRegistry`` that keeps experts, and the results that were measured with them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from registry.answers import ImportedExperts, ImportedResults, Measurement
from registry.errors import InvalidQueryError, InvalidRecordError, NotFoundError
from registry.experts import hub
from registry.experts import sources as expert_sources
from registry.experts.limits import Limits
from registry.ingest.data import data_spec, module_folder
from registry.ingest.networks import measure_expert, measure_on_data, with_data
from registry.ingest.tables import read_results
from registry.library.base import RegistryBase
from registry.names import checked_name
from registry.notebooks import Records
from registry.options import Data, Progress
from registry.records import ExpertRecord, ResultRecord
from registry.storage.audit import note_registered
from registry.storage.experts import new_results
from registry.trackers.places import RECOGNISED, is_recognised, read_place
from registry.trackers.plan import Names, plan_results
from registry.trackers.rules import make_rules


class Experts(RegistryBase):
    """The part of ``TaskRegistry`` that keeps experts and results."""

    def add_expert(
        self,
        loader: str,
        *,
        name: str | None = None,
        source_task: str = "",
        source_accuracy: float | None = None,
        license: str = "",
    ) -> ExpertRecord:
        """Register a pretrained network; its size and cost are measured by loading it once.

        Args:
            loader: ``architecture.weights`` or ``architecture@FILE``, see ``indexer.networks.load``.
            name: To be known by; what the loader suggests if ``None``.
            source_task: Name of the task it was trained on, if known.
            source_accuracy: Accuracy on held-out samples of that task, 0 to 1, if known.
            license: SPDX identifier, if known.

        Raises:
            NotFoundError: If there is no such network.
            IngestError: If its weights cannot be read.
            DuplicateError: If the name is taken.
        """
        if name is not None:
            checked_name("expert", name)
        self._store.check_place()
        expert = expert_sources.describe_expert(
            name, loader, source_task=source_task, source_accuracy=source_accuracy, license=license
        )
        self._create_if_missing()
        with self._store.write_lock():
            self._store.add_experts([expert])
            folder = module_folder(expert.loader)
            note_registered(self._store.database, "expert", expert.name, expert.loader, folder)
        return expert

    def import_experts(
        self, source: str | Path, *, from_dir: str | Path | None = None, skip_bad: bool = False
    ) -> ImportedExperts:
        """Register the experts that a library, a CSV file or model folders describe; nothing is loaded.

        All are registered, or none.

        Importing again writes nothing but what has changed: what the source says of an expert takes precedence
        over what is registered, and where it says nothing, that stays.

        Args:
            source: ``torchvision``, ``timm``, or a CSV file, see ``registry.ingest.tables``; or ``hf`` with a
                folder. An expert of a library that was removed here stays removed, and a name that another
                network has here stays with it.
            from_dir: A folder that holds a model as the Hugging Face hub gives it, or folders of such; licence,
                source task and results are those of its card, see ``registry.experts.hub``.
            skip_bad: Take the good model folders, and report the others.

        Returns:
            How many are new, and what became of the others.

        Raises:
            InvalidRecordError: If the file or a row is bad; every bad row is named. So is every model folder
                that cannot be an expert.
            InvalidQueryError: If there is a folder without ``hf``, or ``hf`` without a folder.
            NotFoundError: If the source is a plain word, and neither a library nor a file.
            DuplicateError: If a row gives the name of an expert to another network.
            IngestError: If the library is not installed.
            MissingExtraError: If PyYAML, which reads model cards, is not installed.
        """
        if str(source) == hub.SOURCE and from_dir is not None:
            return self._import_folders(Path(from_dir), skip_bad=skip_bad)
        if str(source) == hub.SOURCE or from_dir is not None or skip_bad:
            raise InvalidQueryError(
                "source hf needs a folder (--from-dir DIR), and no other source takes one, nor --skip-bad; got "
                f"source {str(source)!r} and {'no folder' if from_dir is None else f'folder {from_dir}'}"
            )
        library = expert_sources.is_library(source)
        described = expert_sources.read_source(source)
        self._create_if_missing()
        with self._store.write_lock():
            present = {expert.name: expert for expert in self._store.experts()}
            removed = self._store.removed_experts()
            merged = expert_sources.merge(described, present, removed, library=library)
            about: dict[str, Any] = {"source": str(source)} if library else {}
            self._store.add_experts(merged.new, **about)
            self._store.update_experts(merged.changed, **about)
        return ImportedExperts(str(source), len(merged.new), len(merged.changed), merged.unchanged, merged.left)

    def _import_folders(self, root: Path, *, skip_bad: bool) -> ImportedExperts:
        """Register the models in a folder with their results.

        Raises:
            InvalidRecordError: If the folder holds no model, or one is bad and ``skip_bad`` is not set.
        """
        models, problems = hub.read_models(root)
        if problems and not skip_bad:
            raise InvalidRecordError("; ".join(problems))
        self._create_if_missing()
        with self._store.write_lock():
            described = hub.as_experts(models, self._store.task_names())
            present = {expert.name: expert for expert in self._store.experts()}
            free, taken = hub.without_taken(described, present)
            if (problems := [*problems, *taken]) and not skip_bad:
                raise InvalidRecordError("; ".join(problems))
            merged = expert_sources.merge([model.expert for model in free], present, (), library=False)
            about = {model.expert.name: {"source": hub.SOURCE, **model.about} for model in free}
            self._store.add_experts(merged.new, each=about)
            self._store.update_experts(merged.changed, each=about)
            results = hub.new_results(free, self._store.results())
            if results:
                self._store.add_results(results)
        notes = (*problems, *(note for model in free for note in model.notes))
        counts = len(merged.new), len(merged.changed), merged.unchanged
        return ImportedExperts(str(root), *counts, results=len(results), notes=notes)

    def experts(self, *, patterns: Sequence[str] = (), toys: bool = True) -> Records[ExpertRecord]:
        """Experts in order of name.

        Args:
            patterns: Only those whose name or alias matches one, such as ``convnext*``; all without any.
            toys: Whether the small networks of this package are among them.

        Raises:
            InvalidQueryError: If no expert matches a pattern.
            StorageError: If there is no registry.
        """
        experts, _ = Limits(patterns=patterns).within(self._opened().experts(builtin=self.builtin))
        return Records([expert for expert in experts if toys or not expert.toy])

    def expert(self, name: str) -> ExpertRecord:
        """One expert by name.

        Raises:
            NotFoundError: If it is not there.
        """
        return self._opened().expert(name)

    def remove_expert(self, name: str, *, purge: bool = False) -> None:
        """Take an expert out of every list and answer.

        Args:
            name: Name of the expert.
            purge: Delete its rows and the results of it for good; without it they stay.

        Raises:
            NotFoundError: If it is not there.
        """
        store = self._opened()
        (store.purge_expert if purge else store.remove_expert)(name)

    def restore_expert(self, name: str) -> None:
        """Bring back the expert of that name that was removed last.

        Raises:
            NotFoundError: If no expert of that name was removed.
            DuplicateError: If another one has the name now.
        """
        self._opened().restore_expert(name)

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

        Raises:
            NotFoundError: If the task or the expert is not registered.
            InvalidRecordError: If the value is out of the range of the metric, it is not known which way the
                metric goes, or the value contradicts another of the same seed.
        """
        store = self._opened()
        version, record = store.task(task), store.expert(expert)
        result = ResultRecord(
            version.name,
            expert,
            accuracy,
            metric,
            protocol,
            seed,
            source,
            lower_is_better=lower_is_better,
            task_version=version.version,
            weights_hash=record.weights_hash,
            run_id=run_id,
        )
        store.add_results([result])
        return result

    def import_results(
        self,
        path: str | Path,
        *,
        skip_bad: bool = False,
        unregistered: bool = False,
        dry_run: bool = False,
        **rules: Any,
    ) -> ImportedResults:
        """Remember the results of a CSV file, or of what a tracker of experiments wrote.

        What is there is not added again; a run counts once, by its id. For the columns of a CSV file see
        ``registry.ingest.tables``, for trackers ``registry.trackers.places``.

        Args:
            path: The CSV file; or a file or folder of MLflow, Weights & Biases, Lightning or others.
            skip_bad: Take the good rows of the file and leave the bad ones; without it, all or none. Runs of
                a tracker that cannot count are always left out and reported.
            unregistered: Take results on tasks and of experts that are not registered too. Such tasks have no
                data: they are never neighbours, but say how experts compare.
            dry_run: Write nothing, and answer what would be added.
            rules: For trackers: ``task_from``, ``expert_from``, ``metric``, ``protocol``, ``step``, or
                ``file``, a TOML file of them; see ``registry.trackers.rules``.

        Returns:
            How many were new, and a sentence for every cause of rows or runs that were not taken.

        Raises:
            InvalidRecordError: If the file is bad, a row is and ``skip_bad`` is not set, a result contradicts
                another of the same seed, or no run of a tracker can count; every cause is named.
            InvalidQueryError: If a rule is not of its form, or the file has no use for it.
            StorageError: If there is no registry.
        """
        place, store = Path(str(path).removeprefix("sqlite:///").removeprefix("file:")), self._opened()
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
            raise InvalidQueryError(f"{place}: rules are for what a tracker wrote; expected {RECOGNISED}")
        else:
            check = self._result_check() if not unregistered else lambda result: None
            results, problems = read_results(place, check)
            failed = bool(problems) and not skip_bad
        if failed:
            raise InvalidRecordError("; ".join(problems))
        new = new_results(results, store.results()) if dry_run else store.add_results(results)
        return ImportedResults(new, problems, len(results) - len(new), runs or len(results), taken)

    def results(self, *, task: str | None = None, expert: str | None = None) -> Records[ResultRecord]:
        """Every result, of one task or expert if asked for.

        Raises:
            StorageError: If there is no registry.
        """
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
        progress: Progress | None = None,
    ) -> Measurement:
        """Load an expert, measure its linear-probe accuracy on a registered task, and remember the result.

        Args:
            task: Name of a task whose data is still where it was registered from. It is not checked to be
                the same data still. Or data that is not
                registered, other than by a data spec: it is measured on, and nothing is stored.
            expert: Name of an expert.
            data: The data of the task, if it is not where it was registered from, as data that a program held.
            seed: Seed of the sample and the draws.
            device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
            record: Whether to store the result.
            progress: Called as ``progress(stage, done, total)``.

        Raises:
            NotFoundError: If there is no such task or expert.
            IngestError: If the data or the weights cannot be read; the images of starter tasks do not ship.
            InvalidRecordError: If the weights are not those that were registered.
        """
        if not isinstance(task, str):
            return self._measure_on(data_spec(task), expert, seed=seed, device=device, progress=progress)
        registered, expected = self._opened().task(task), self.expert(expert)
        if data is not None:
            registered = with_data(registered, data_spec(data))
        with self._opening("expert", expert, expected.loader):
            measured = measure_expert(expected.loader, registered, seed=seed, device=device, progress=progress)
        if expected.weights_hash not in {"", measured.weights_hash}:
            before, now = expected.weights_hash[:8], measured.weights_hash[:8]
            raise InvalidRecordError(
                f"the weights of {expert} are not those that were registered (hash {before}, now {now}): "
                f"register these under another name (`t2v expert add {expected.loader} --name NAME`)"
            )
        if record:
            self.add_result(
                f"{registered.name}@{registered.version}",
                expert,
                accuracy=measured.accuracy,
                protocol=measured.protocol,
                seed=seed,
                source="t2v result measure",
            )
        return Measurement(
            registered.name, expert, measured.accuracy, measured.deviation, measured.protocol, record
        )

    def _measure_on(self, data: str, expert: str, **how: Any) -> Measurement:
        """Measure an expert on data that is not registered."""
        loader = self.expert(expert).loader
        with self._opening("expert", expert, loader):
            measured = measure_on_data(loader, data, **how)
        return Measurement(
            data, expert, measured.accuracy, measured.deviation, measured.protocol, recorded=False
        )

    def _result_check(self) -> Callable[[ResultRecord], None]:
        """A check that raises ``NotFoundError`` for a result of a task or expert that is not registered."""
        store = self._opened()
        registered = {"task": store.task_names(), "expert": {expert.name for expert in store.experts()}}

        def check(result: ResultRecord) -> None:
            for kind, names in registered.items():
                if getattr(result, kind) not in names:
                    raise NotFoundError(kind, getattr(result, kind), names)

        return check
