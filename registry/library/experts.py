"""The part of ``TaskRegistry`` that keeps experts."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from registry.answers import ImportedExperts
from registry.builtin.starter import shipped_loaders
from registry.errors import InvalidQueryError, InvalidRecordError, NotFoundError
from registry.gate import checked_name
from registry.ingest.data import module_folder
from registry.library.base import RegistryBase
from registry.notebooks import Records
from registry.records import ExpertRecord
from registry.storage.rows import note_registered


class Experts(RegistryBase):
    """The part of ``TaskRegistry`` that keeps experts."""

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
        from registry.experts import sources as expert_sources

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

        Raises:
            InvalidRecordError: If the file or a row is bad; every bad row is named. So is every model folder
                that cannot be an expert.
            InvalidQueryError: If there is a folder without ``hf``, or ``hf`` without a folder.
            NotFoundError: If the source is a plain word, and neither a library nor a file.
            DuplicateError: If a row gives the name of an expert to another network.
            IngestError: If the library is not installed.
            MissingExtraError: If PyYAML, which reads model cards, is not installed.
        """
        from registry.experts import hub
        from registry.experts import sources as expert_sources

        if str(source) == hub.SOURCE and from_dir is not None:
            return self._import_folders(Path(from_dir), skip_bad=skip_bad)
        if str(source) == hub.SOURCE or from_dir is not None or skip_bad:
            raise InvalidQueryError(
                "source hf needs a folder (from_dir='DIR'), and no other source takes one, nor skip_bad=True; "
                f"got source {str(source)!r} and {'no folder' if from_dir is None else f'folder {from_dir}'}"
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
        from registry.experts import hub
        from registry.experts import sources as expert_sources

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
        """
        from registry.experts.limits import Limits

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

    def alias_expert(self, name: str, alias: str) -> ExpertRecord:
        """Let another name stand for the weights of an expert, such as that of another library.

        Results under either name count for both.

        Args:
            name: Name of an expert.
            alias: The other name, which another expert may have too if it is the same weights.

        Raises:
            NotFoundError: If there is no such expert.
            InvalidRecordError: If the word cannot name an expert, or would join experts whose weights or
                results say that they differ.
        """
        from registry.library.evidence import same_weights, usable_results

        store = self._opened()
        checked_name("expert", alias)
        with store.write_lock():
            expert = store.expert(name)
            reserved = {name.casefold(): loader for (_, name), loader in shipped_loaders().items()}
            if reserved.get(alias.casefold(), expert.loader) != expert.loader:
                raise InvalidRecordError(
                    f"{alias} cannot be another name of {expert.name}: it is that of a shipped expert; choose "
                    "another alias"
                )
            named = replace(expert, aliases=(*expert.aliases, alias))
            others = [other for other in store.experts() if other.name != expert.name]
            results = usable_results(store.experts(), store.results(), store.removed_weights())
            _, _, before = same_weights([expert, *others], results)
            _, _, after = same_weights([named, *others], results)
            if reasons := [reason for reason in after if reason not in before]:
                raise InvalidRecordError(
                    f"{alias} cannot be another name of {expert.name}: {reasons[0].partition(':')[0]}; choose "
                    "another alias, or correct the results first"
                )
            if named != expert:
                store.update_experts([named], alias=alias)
        return named

    def unalias_expert(self, name: str, alias: str) -> ExpertRecord:
        """Let another name of an expert no longer stand for it.

        Raises:
            NotFoundError: If there is no such expert, or it has no such alias.
        """
        store = self._opened()
        with store.write_lock():
            expert = store.expert(name)
            if alias not in expert.aliases:
                raise NotFoundError("alias", alias, expert.aliases)
            named = replace(expert, aliases=tuple(other for other in expert.aliases if other != alias))
            store.update_experts([named], unalias=alias)
        return named
