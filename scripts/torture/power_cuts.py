"""Cut a disk's power in the middle of writes to a registry, and count what was lost, doubled or unreadable.

    python scripts/torture/power_cuts.py --file-system ext4 --cuts 200
    python scripts/torture/power_cuts.py --file-system xfs --cuts 50

A registry lies on a file system on a disk that logs every write and every flush (``logged_disk.py``). One
process writes to it: adds, tags, imports and so on, each noted in the same log when it begins and when its call
has returned. Then the power is cut at random moments of that log, as often in each kind of operation: of what
was not flushed by then the disk has a random part. The file system is mounted, which replays its journal, the
registry copied and the file system checked. Then, before any repair and after, all rows must be those of after
the last call that had returned, but for what the call in progress was to add, change or take away. An import
that was cut short must be finished by importing again, a backup be the last that had returned or the one in
progress, whole, and the registry take the next write.

Needs root, Linux, /dev/fuse, loop devices, mkfs of the file system, and a gigabyte in the temporary folder.
"""

import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import click
from logged_disk import MARK, Log
from machine import print_machine, save_figures
from power_cut_writer import (
    BACKUP,
    BUNDLE,
    REGISTRY,
    SPACE,
    Operation,
    State,
    make_bundles,
    read_operations,
    read_state,
)
from torture_workers import make_task

from registry import TaskRegistry
from registry.errors import RegistryError
from registry.storage.store import Store

MAKE = {
    "ext4": ["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"],
    "xfs": ["mkfs.xfs", "-q", "-f"],
    "btrfs": ["mkfs.btrfs", "-q", "-f"],
}
CHECK = {"ext4": ["e2fsck", "-f", "-n"], "xfs": ["xfs_repair", "-n"], "btrfs": ["btrfs", "check", "--readonly"]}
IMAGE_MEBIBYTES = {"ext4": 192, "xfs": 320, "btrfs": 256}
FAULTS = (
    "unreadable",
    "lost",
    "doubled",
    "strange",
    "dirty after repair",
    "no next write",
    "file system broken",
)
PER_RUN = 50


@click.command()
@click.option("--file-system", type=click.Choice(list(MAKE)), default="ext4", show_default=True)
@click.option("--cuts", default=200, show_default=True)
@click.option("--operations", default=75, show_default=True, help=f"Of the writer, for {PER_RUN} cuts.")
@click.option("--during", multiple=True, help="Cut inside of this kind only; again for more.")
@click.option("--seed", default=0, show_default=True)
@click.option("--keep", type=click.Path(path_type=Path), help="Copy registries with a fault into this folder.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Save the figures here.")
def main(
    file_system: str,
    cuts: int,
    operations: int,
    during: tuple[str, ...],
    seed: int,
    keep: Path | None,
    json_path: Path | None,
) -> None:
    """Run, print the counts, and exit 1 if anything was lost, doubled or could not be read."""
    os.environ["T2V_DURABILITY"] = "full"
    counts: Counter[str] = Counter(dict.fromkeys(("cuts", *FAULTS), 0))
    kinds: Counter[str] = Counter()
    figures: dict[str, Any] = {"machine": print_machine(), "file_system": file_system}
    with tempfile.TemporaryDirectory() as name:
        make_bundles(Path(name))
        while counts["cuts"] < cuts:
            folder = Path(name) / f"run{seed}"
            folder.mkdir()
            Run(folder, file_system, seed, keep, during).cut(
                min(PER_RUN, cuts - counts["cuts"]), operations, counts, kinds
            )
            shutil.rmtree(folder)
            seed += 1
    click.echo(
        "cuts in the middle of: " + ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items()))
    )
    for what, count in counts.items():
        click.echo(f"{what:>28} {count}")
    save_figures(json_path, figures | counts | {"kinds": kinds})
    sys.exit(any(counts[name] for name in FAULTS))


class UnmountableError(Exception):
    """A file system could not replay its journal."""


class Run:
    """One run of the writer, and cuts at moments of it."""

    def __init__(
        self, folder: Path, file_system: str, seed: int, keep: Path | None, during: tuple[str, ...]
    ) -> None:
        self._folder, self._file_system, self._seed, self._keep = folder, file_system, seed, keep
        self._random, self._during = random.Random(seed), during

    def cut(self, cuts: int, length: int, counts: Counter[str], kinds: Counter[str]) -> None:
        """Let the writer write, then cut so often."""
        start = time.monotonic()
        log = self._write(length)
        operations = read_operations(self._folder.parent)
        flushes = sum(event.kind == b"F" for event in log.events)
        click.echo(
            f"run {self._seed}: {len(log.events)} events, {flushes} flushes, {time.monotonic() - start:.0f} s"
        )
        for position, number, done in self._moments(log, operations, cuts):
            operation = operations[number]
            counts["cuts"] += 1
            kinds[operation.kind] += 1
            unflushed = log.cut(position, self._folder / "cut.img", self._random)
            counts["with writes not flushed"] += bool(unflushed)
            operation = replace(operation, before=operation.after) if done else operation
            returned = [one.after for one in operations[: number + done] if one.kind == "backup"][-1:]
            begun = [operation.after] if operation.kind == "backup" else []
            try:
                faults = self._look(operation, counts) + self._restore(returned, [*returned, *begun], counts)
            except UnmountableError as error:  # nothing of ours is to be seen
                faults = [("file system broken", str(error))]
            for fault, what in faults:
                click.echo(
                    f"{fault}: run {self._seed} at {position}, in {operation.kind} {number}: {what[:300]}",
                    err=True,
                )
            counts.update({fault for fault, _ in faults})
            if faults and self._keep and (self._folder / "copy").exists():
                kept = self._keep / f"{self._file_system}-{self._seed}-{position}"
                shutil.copytree(self._folder / "copy", kept, dirs_exist_ok=True)

    def _write(self, operations: int) -> Log:
        """Run the writer on a logged disk; the log, and the disk as it was when it began."""
        image, before, path = (self._folder / name for name in ("disk.img", "before.img", "log"))
        make_file_system(self._file_system, image)
        shutil.copyfile(image, before)
        scripts = Path(__file__).parent
        with logged_disk(self._folder, image, path) as (disk, marks):
            command = [sys.executable, scripts / "power_cut_writer.py", disk, marks, self._folder.parent]
            environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
            subprocess.run([*command, str(operations), str(self._seed)], check=True, env=environment)
        return Log(path, before)

    def _moments(self, log: Log, operations: list[Operation], cuts: int) -> list[tuple[int, int, bool]]:
        """Positions in the log, the operation that was in progress or last, and whether it had returned."""
        by_kind = defaultdict(list)
        number, done = -1, False
        for position, event in enumerate(log.events):
            if number >= 0:
                by_kind[operations[number].kind].append((position, number, done))
            if event.kind == MARK:
                word, value = event.content.decode().split()
                number, done = int(value), word == "end"
        by_kind = {
            kind: moments for kind, moments in by_kind.items() if not self._during or kind in self._during
        }
        share = -(-cuts // len(by_kind))
        each = [self._random.sample(moments, min(share, len(moments))) for moments in by_kind.values()]
        chosen = list(chain.from_iterable(each))
        return sorted(self._random.sample(chosen, min(cuts, len(chosen))))

    def _look(self, operation: Operation, counts: Counter[str]) -> list[tuple[str, str]]:
        """Mount what a cut left, check it, and compare the registry with what must and may be in it."""
        faults, copy = list[tuple[str, str]](), self._folder / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.rmtree(self._folder / BACKUP, ignore_errors=True)
        with mounted(self._folder / "cut.img", self._folder / "mount") as disk:
            shutil.copytree(disk / REGISTRY, copy) if (disk / REGISTRY).exists() else copy.mkdir()
            if (disk / BACKUP).exists():
                shutil.copytree(disk / BACKUP, self._folder / BACKUP)
        check = subprocess.run(
            [*CHECK[self._file_system], self._folder / "cut.img"], capture_output=True, text=True
        )
        if check.returncode:
            faults.append(("file system broken", check.stdout + check.stderr))
        # A new place each time: what a process knows of one it keeps by its path.
        copy = copy.rename(self._folder / f"copy{counts['cuts']}")
        try:
            faults += self._compare(copy, operation, counts)
        finally:
            copy.rename(self._folder / "copy")
        return faults

    def _restore(
        self, returned: list[State], right: list[State], counts: Counter[str]
    ) -> list[tuple[str, str]]:
        """Restore the backup that a cut left: one of those that were made or begun last, row for row."""
        place = self._folder / f"restored{counts['cuts']}"
        try:
            TaskRegistry(place).restore(self._folder / BACKUP)
            rows = _records(read_state(Store(place)))
        except RegistryError as error:
            return [("unreadable", f"backup: {error}")] if returned else []
        counts["backups restored"] += 1
        return [] if rows in map(_records, right) else [("strange", "a backup that is none of those made last")]

    def _compare(self, copy: Path, operation: Operation, counts: Counter[str]) -> list[tuple[str, str]]:
        if not Store(copy).exists and not operation.before.rows:
            counts["before there was a registry"] += 1
            return []
        faults = []
        try:
            faults += differences(read_state(Store(copy)), operation)
        except RegistryError as error:
            faults.append(("unreadable", str(error)))
        try:
            kinds = {problem.kind for problem in Store(copy).verify(repair=True)} - {"dangling"}
            counts.update(f"{kind} by verify" for kind in kinds)
            if "incomplete" in kinds and operation.kind != "purge":
                faults.append(("lost", "an embedding of a task that is there"))
            if left := [problem for problem in Store(copy).verify() if problem.kind != "dangling"]:
                faults.append(("dirty after repair", str(left)))
            faults += differences(read_state(Store(copy)), operation)
        except RegistryError as error:
            faults.append(("unreadable", str(error)))
        try:
            if operation.bundle is not None:
                TaskRegistry(copy).import_bundle(self._folder.parent / BUNDLE.format(operation.bundle))
                whole = replace(operation, before=operation.after)
                again = differences(read_state(Store(copy)), whole)
                faults += [fault for fault in again if not fault[1].startswith(("audit", "meta"))]
            task, embedding = make_task("afterwards", 1)
            Store(copy).add_task(task, SPACE.space_id, embedding)
            Store(copy).task("afterwards@1")
        except RegistryError as error:
            faults.append(("no next write", str(error)))
        return faults


def _records(state: State) -> dict[str, Counter[str]]:
    """Rows that a backup has, but for what the registry notes of itself."""
    return {name: rows for name, rows in state.rows.items() if name not in {"audit", "meta"}}


def differences(state: State, operation: Operation) -> list[tuple[str, str]]:
    """What is not as it was before or after the write in progress.

    A task that is purged is hidden first; an undo that was cut short is finished by the next who writes.
    """
    faults, before, after = [], operation.before, operation.after
    for name in before.rows.keys() | after.rows.keys() | state.rows.keys():
        for is_key in (False, True):
            tables = [
                (each.keys if is_key else each.rows).get(name, Counter()) for each in (state, before, after)
            ]
            actual, old, new = tables
            faults += [("lost", f"{name} {row}") for row in (old & new) - actual]
            faults += [
                ("doubled" if row in old | new else "strange", f"{name} {row}")
                for row in actual - (old | new)
                if (operation.kind, name, is_key) != ("purge", "tasks", False)
                and (operation.kind, name) != ("undo", "audit")
            ]
    return faults


def make_file_system(kind: str, image: Path) -> None:
    """In a new, sparse file."""
    with image.open("wb") as file:
        file.truncate(IMAGE_MEBIBYTES[kind] * 2**20)
    subprocess.run([*MAKE[kind], image], check=True, capture_output=True)


@contextmanager
def logged_disk(folder: Path, image: Path, log: Path) -> Iterator[tuple[Path, Path]]:
    """A mounted file system on a disk that logs, and the file for marks.

    Raises:
        ClickException: If this is not root or not Linux.
    """
    served, disk = folder / "served", folder / "disk"
    served.mkdir()
    server = subprocess.Popen([sys.executable, Path(__file__).with_name("logged_disk.py"), served, image, log])
    try:
        while not os.path.ismount(served):
            if server.poll() is not None:
                raise click.ClickException("/dev/fuse cannot be used; this needs root and Linux")
            time.sleep(0.05)
        with mounted(served / "disk", disk) as mount:
            yield mount, served / "marks"
    finally:
        subprocess.run(["umount", served], check=False, capture_output=True)
        server.wait(60)


@contextmanager
def mounted(image: Path, folder: Path) -> Iterator[Path]:
    """A file system in a file.

    Raises:
        UnmountableError: If it cannot be mounted.
    """
    folder.mkdir(exist_ok=True)
    command = ["losetup", "-f", "--show", image]
    loop = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    try:
        if (mount := subprocess.run(["mount", loop, folder], capture_output=True, text=True)).returncode:
            raise UnmountableError(mount.stderr)
        try:
            yield folder
        finally:
            subprocess.run(["umount", folder], check=True)
    finally:
        subprocess.run(["losetup", "-d", loop], check=True)


if __name__ == "__main__":
    main()
