"""Damage every file of a registry, one at a time, and count what is answered, repaired and said afterwards.

    python scripts/torture/damages.py
    python scripts/torture/damages.py --of undoing --part 3 --parts 20

Each file is deleted, emptied, cut in half, filled with zeros, has a bit flipped, is made a folder and is locked
(or is cut and flipped at 20 places each: ``--ask-only``). Everything is asked of the registry before and after
`t2v verify --repair`: an answer must be right or an error in one line, and what is answered otherwise after the
repair it must have said to be lost. The registry has removed and purged rows, several spaces, an index, and a
write that was taken back (``undone``), or an undo that a kill cut short (``undoing``); ``backup`` damages the
files of a backup instead, and restores it.

Copies are made under ``$TMPDIR``: `/dev/shm` is fast. The process that asks has bounded memory and time, so
that one that dies or hangs is counted too; run by root, it asks as somebody who may not read all files.
"""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

sys.path.append(str(Path(__file__).parents[2] / "tests" / "support"))

from builders import make_embedding, make_expert, make_result, make_space, make_task
from click.testing import CliRunner
from kill_points import INDEXED_FROM, OTHER_SPACE, SPACE, TASKS, ask
from machine import print_machine, save_figures

from registry import TaskRegistry
from registry.cli.main import main as t2v
from registry.errors import RegistryError
from registry.index import neighbors
from registry.notebooks import to_json
from registry.storage.moments import UNDOING
from registry.storage.store import Store

NOBODY = 65534
MEMORY_BYTES = 8 * 2**30
SECONDS_PER_DAMAGE = 60
PLACES = 20  # of each way to change some bytes, where all places are tried
WAYS = ("delete", "empty", "half", "zeros", "flip", "folder", "lock")
OF = ("undone", "undoing", "backup")
ASKED = ("a", "b", "c", "t07")
WRONG = (
    "wrong answer",
    "unreadable after repair",
    "lost without being said",
    "traceback",
    "died or hung",
    "other",
)
BOUND = "cannot be asked or taken back"  # says a repair of what was before it


@dataclass(frozen=True)
class Damage:
    """What is done to a file; the place is where it is cut, or the number of the bit that is flipped."""

    path: str
    way: str
    place: int = 0

    def apply(self, folder: Path) -> None:
        """Do it."""
        path = folder / self.path
        content = bytearray(path.read_bytes())
        match self.way:
            case "delete" | "folder":
                path.unlink()
                if self.way == "folder":
                    path.mkdir()
            case "lock":
                path.chmod(0)
            case "flip":
                content[self.place // 8] ^= 1 << self.place % 8
                path.write_bytes(content)
            case "zeros":
                path.write_bytes(bytes(len(content)))
            case _:
                path.write_bytes(content[: {"empty": 0, "half": len(content) // 2}.get(self.way, self.place)])


def files_of(folder: Path) -> list[str]:
    """Every file by its path in the folder, sorted."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def one_of_each(folder: Path) -> list[Damage]:
    """Every file in every way."""
    damages = []
    for path in files_of(folder):
        size = (folder / path).stat().st_size
        place, ways = (
            random.Random(path).randrange(8 * size or 1),
            WAYS if size else ("delete", "folder", "lock"),
        )
        damages += [Damage(path, way, place if way == "flip" else 0) for way in ways]
    return damages


def every_damage(folder: Path) -> list[Damage]:
    """Every file deleted, cut off and flipped at many places, the same for the same registry."""
    damages = []
    for path in files_of(folder):
        size, generator = (folder / path).stat().st_size, random.Random(path)
        cuts = sorted({size * number // PLACES for number in range(PLACES)}) if size else []
        flips = generator.sample(range(8 * size), min(PLACES, 8 * size))
        damages += [Damage(path, "delete"), *(Damage(path, "cut", cut) for cut in cuts)]
        damages += [Damage(path, "flip", place) for place in flips]
    return damages


def sampled(damages: Sequence[Damage], number: int) -> list[Damage]:
    """As many of each kind of file and each way as of any other, as far as there are."""
    generator, by_kind = random.Random(0), dict[Any, list[Damage]]()
    for damage in damages:
        parts = Path(damage.path).parts
        by_kind.setdefault((parts[0], *parts[1:-1], Path(parts[-1]).suffix, damage.way), []).append(damage)
    rounds = [generator.sample(kind, len(kind)) for kind in by_kind.values()]
    generator.shuffle(rounds)
    ordered = [kind[turn] for turn in range(max(map(len, rounds))) for kind in rounds if turn < len(kind)]
    return ordered[:number]


def build_registry(folder: Path, of: str = "undone") -> None:
    """Something of each kind, rows deleted so that there are deletion files, an index, and an undo."""
    store = Store.create(folder, lambda new: new.add_space(make_space()))
    names = (*TASKS, "gone", "hidden")
    store.add_tasks([(make_task(name), make_embedding(name)) for name in names], SPACE)
    store.add_task(make_task("a", 2, tags=("red",)), SPACE, make_embedding("a", 2))
    store.add_space(make_space(OTHER_SPACE, dim=3, probe="other.test"))
    store.add_embedding(OTHER_SPACE, make_embedding("b", dim=3))
    store.add_experts([make_expert("one.test"), make_expert("two.test")])
    store.add_results([make_result(task, "one.test") for task in ("a", "b", "gone")])
    store.set_alias("a@1", "first")
    store.purge_task("gone")
    store.remove_task("hidden")
    store.remove_expert("two.test")
    store.set_tags("c", ["taken", "back"])
    store.database.moments.undo()
    ask(folder)
    if of == "undoing":  # as a kill just before its end leaves it
        last = store.database.moments.all()[-1].number
        store.database.place.write_note(UNDOING, store.database.place.read_note(str(last)))


QUESTIONS = {
    "tasks": lambda registry, store: registry.tasks(),
    "versions": lambda registry, store: store.tasks(latest=False),
    "experts": lambda registry, store: registry.experts(),
    "results": lambda registry, store: registry.results(),
    "spaces": lambda registry, store: store.spaces(),
    "audit": lambda registry, store: store.audit(),
    "writes": lambda registry, store: registry.writes(),
    "at": lambda registry, store: registry.at(registry.writes()[-1].number - 1).tasks(),
    "other space": lambda registry, store: store.embeddings(OTHER_SPACE),
} | {
    f"{kind} {name}": question
    for name in ASKED
    for kind, question in {
        "nearest": lambda registry, store, name=name: registry.nearest(name, probe=SPACE, k=3),
        "embedding": lambda registry, store, name=name: registry.embeddings_of(name),
    }.items()
}

Answers = Mapping[str, str | Exception]


def answers(folder: Path) -> Answers:
    """What a registry that is opened anew answers to everything; an error as itself."""
    registry, store, said = TaskRegistry(folder), Store(folder), dict[str, str | Exception]()
    for name, question in QUESTIONS.items():
        try:
            said[name] = repr(plain(question(registry, store)))
        except Exception as error:
            said[name] = error
    return said


def plain(answer: Any) -> Any:
    """Lists and numbers of an answer, arrays in full."""
    if hasattr(answer, "__dataclass_fields__"):
        return {name: plain(getattr(answer, name)) for name in answer.__dataclass_fields__}
    if isinstance(answer, list | tuple):
        return [plain(value) for value in answer]
    return answer.tolist() if hasattr(answer, "tolist") else to_json(answer)


def faults_of(said: Answers, right: Answers, wrong: str = "wrong answer", but: Sequence[str] = ()) -> list[str]:
    """Answers that are neither right nor an error in one line."""
    faults = []
    for name, answer in said.items():
        if isinstance(answer, Exception):
            if not isinstance(answer, RegistryError) or len(str(answer).splitlines()) != 1:
                faults.append(f"traceback: {name}: {answer!r}")
        elif answer != right[name] and name not in but:
            faults.append(f"{wrong}: {name}: {answer[-300:]}, not {str(right[name])[-300:]}")
    return faults


def run(folder: Path, *words: str) -> tuple[int, str, list[str]]:
    """What a command on a registry ends with and prints, and whether that was a traceback."""
    done = CliRunner().invoke(t2v, ["--registry", str(folder), *words])
    is_error = not isinstance(done.exception, SystemExit | None) or "unforeseen" in done.output
    return (
        done.exit_code,
        done.output,
        [f"traceback: {' '.join(words)}: {done.exception!r}"] if is_error else [],
    )


def repair_faults(folder: Path, right: Answers, but: Sequence[str]) -> tuple[list[str], str]:
    """What is wrong with `t2v verify --repair`, and how it ended."""
    code, output, faults = run(folder, "verify", "--repair")
    said = answers(folder)
    but = ("writes", "at") if BOUND in output else but
    faults += faults_of(said, right, "lost without being said", but) if "lost" not in output else []
    if code == 0:
        faults += [
            f"unreadable after repair: {name}"
            for name in said
            if isinstance(said[name], Exception) and name not in but
        ]
        faults += after_faults(folder)
    if len(output.splitlines()) > 40:
        faults.append(f"other: repair says {len(output.splitlines())} lines")
    ended = "mended" if code == 0 else "named what to restore" if "copy" in output else "said what is wrong"
    return [f"{fault}; repair said {output[-300:]!r}" for fault in faults], ended


def after_faults(folder: Path) -> list[str]:
    """What does not work where repair said that all is well: the next writes, an undo, and a look."""
    try:
        Store(folder).add_task(make_task("after"), SPACE, make_embedding("after"))
        Store(folder).add_experts([make_expert("after")])
        TaskRegistry(folder).undo()
        there = "after" in Store(folder).task_names(), "after" in {one.name for one in Store(folder).experts()}
    except Exception as error:
        return [f"unreadable after repair: all is well, it says, but {error!r}"[:400]]
    code, output, faults = run(folder, "verify")
    if there != (True, False):
        faults.append(f"unreadable after repair: the undo of an expert left {there} of the last two writes")
    return [*faults, *([f"unreadable after repair: verify says {output!r}"] if code else [])]


def backup_faults(folder: Path, right: Answers) -> tuple[list[str], str]:
    """What is wrong with a restore of a damaged backup, and with the next backup to the same folder."""
    backup, restored, faults = folder / "backup", folder / "restored", list[str]()
    for words in ([], ["--yes"]):
        code, _, tracebacks = run(restored, "restore", str(backup), *words)
        faults += tracebacks
        if code == 0:
            faults += faults_of(answers(restored), right, "lost without being said", ("audit", "writes", "at"))
            break
        if restored.exists():
            faults.append("other: a restore that failed left something")
    ended = "restored" if code == 0 else "refused"
    code, output, tracebacks = run(folder / "registry", "backup", str(backup))
    faults += tracebacks
    if code == 0:
        shutil.rmtree(restored, ignore_errors=True)
        code, output, tracebacks = run(restored, "restore", str(backup))
        faults += tracebacks + ([f"unreadable after repair: backed up again, but {output!r}"] if code else [])
    return faults, f"{ended}, and the next backup {'refused' if code else 'made anew'}"


def say(line: object) -> None:
    """To the process that started this one, at once."""
    sys.stdout.write(f"{json.dumps(line)}\n")
    sys.stdout.flush()


def work(pristine: Path, folder: Path, how: Mapping[str, Any], start: int) -> None:
    """Try the damages from one number on; say which, then what was wrong."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    neighbors.EXACT_BELOW = INDEXED_FROM
    (
        bytes(4).decode("utf-32-be"),
        bytes(4).decode("utf-32-le"),
    )  # loaded before: who asks may not read these modules
    of_backup = how["of"] == "backup"
    right = answers(folder / "registry" if of_backup else folder)
    damages = chosen(pristine, **how)
    if os.geteuid() == 0:  # who may read everything
        os.setegid(NOBODY)
        os.seteuid(NOBODY)
    for position, damage in enumerate(damages[start:], start):
        say({"position": position, "damage": str(damage)})
        signal.alarm(SECONDS_PER_DAMAGE)
        damage.apply(folder / "backup" if of_backup else folder)
        ended, said, faults = "", {}, list[str]()
        if of_backup:
            faults, ended = backup_faults(folder, right)
        else:
            said = answers(folder)
            but = ("writes", "at") if damage.path.startswith("moments") else ()  # fewer than there were
            faults = faults_of(said, right, but=but) + run(folder, "verify")[2]
            if how["repairs"]:
                further, ended = repair_faults(folder, right, but)
                faults += further
        clear(folder)
        shutil.copytree(pristine, folder, dirs_exist_ok=True)
        refused = any(isinstance(answer, RegistryError) for answer in said.values())
        say({"faults": faults, "refused": refused, "ended": ended})
    signal.alarm(0)


def chosen(folder: Path, *, of: str, repairs: bool, number: int, part: int, parts: int) -> list[Damage]:
    """One part of all the damages, or of a sample of them if the number is not 0."""
    damages = (one_of_each if repairs else every_damage)(folder / "backup" if of == "backup" else folder)
    return (sampled(damages, number) if number else damages)[part::parts]


def clear(folder: Path) -> None:
    """Remove all that is in a folder."""
    for path in folder.iterdir():
        if path.is_dir():
            path.chmod(0o700)
            shutil.rmtree(path)
        else:
            path.unlink()


@dataclass
class Walk:
    """What came of damages.

    Attributes:
        tried: How many there were.
        refused: After how many a question was an error, before any repair.
        faults: What was wrong, each beginning with one of ``WRONG``.
        ended: How often repair or restore ended how.
    """

    tried: int
    refused: int
    faults: list[str]
    ended: Counter[str]


def walk(of: str = "undone", *, repairs: bool = True, number: int = 0, part: int = 0, parts: int = 1) -> Walk:
    """Run the process that asks, again after a damage that ends it."""
    how = {"of": of, "repairs": repairs, "number": number, "part": part, "parts": parts}
    with tempfile.TemporaryDirectory() as name:
        made = Path(name, "made")
        if of == "backup":
            made.mkdir()
            build_registry(made / "registry")
            TaskRegistry(made / "registry").backup(made / "backup")
        else:
            build_registry(made, of)
        return _walked(made, Path(name), how)


def _walked(made: Path, folder: Path, how: Mapping[str, Any]) -> Walk:
    done = Walk(0, 0, [], Counter())
    for lines, process in _processes(made, folder, how, done):
        current = ""
        for line in lines:
            if "damage" in line:
                current, done.tried = line["damage"], line["position"] + 1
            else:
                done.faults += [f"{fault} [{current}]" for fault in line["faults"]]
                done.refused += line["refused"]
                done.ended[line["ended"]] += 1
        if process.returncode == 0:
            return done
        if not current:
            raise RuntimeError(process.stderr[-2000:])
        done.faults.append(f"died or hung: {process.returncode}: {process.stderr[-500:]} [{current}]")
    return done


def _processes(
    made: Path, folder: Path, how: Mapping[str, Any], done: Walk
) -> Iterator[tuple[list[dict[str, Any]], "subprocess.CompletedProcess[str]"]]:
    """One after the other, each with what it said; those that follow go on after what ended the one before."""
    while True:
        for place in (folder / "pristine", folder / "damaged"):
            with suppress(FileNotFoundError):
                clear(place)
            shutil.copytree(made, place, dirs_exist_ok=True)
        for path in (folder, *folder.rglob("*")) if os.geteuid() == 0 else ():
            os.chown(path, NOBODY, NOBODY)
        words = [
            "--worker",
            str(folder / "pristine"),
            str(folder / "damaged"),
            json.dumps(how),
            str(done.tried),
        ]
        process = subprocess.run(
            [sys.executable, __file__, *words], capture_output=True, text=True, check=False
        )
        yield [json.loads(line) for line in process.stdout.splitlines()], process


@click.command()
@click.option("--of", type=click.Choice(OF), help="Only this one.")
@click.option("--part", default=0, show_default=True)
@click.option("--parts", default=1, show_default=True)
@click.option("--ask-only", is_flag=True, help="More places in each file, and no repair.")
@click.option("--quick", is_flag=True, help="Three damages of each.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Save the figures here.")
def main(of: str | None, part: int, parts: int, ask_only: bool, quick: bool, json_path: Path | None) -> None:
    """Walk, print the counts, and exit 1 if anything was as it should not be."""
    figures: dict[str, Any] = {"machine": print_machine()}
    for each in [of] if of else OF[: 1 if ask_only else None]:
        done = walk(each, repairs=not ask_only, number=3 * quick, part=part, parts=parts)
        for fault in done.faults:
            click.echo(fault, err=True)
        wrong = {kind: sum(fault.startswith(kind) for fault in done.faults) for kind in WRONG}
        click.echo(f"{each}: {done.tried} damages, {done.refused} refused before any repair")
        for kind, count in (done.ended | wrong).items():
            click.echo(f"{count:>8} {kind}")
        figures[each] = {"tried": done.tried, "refused": done.refused, "ended": done.ended, "wrong": wrong}
    save_figures(json_path, figures)
    sys.exit(any(any(figures[each]["wrong"].values()) for each in figures if each != "machine"))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        work(Path(sys.argv[2]), Path(sys.argv[3]), json.loads(sys.argv[4]), int(sys.argv[5]))
    else:
        main()
