"""The states of a registry between its writes: what it was at a time, and how a write is taken back.

LanceDB keeps former versions of each table. Before a write is in the audit, a note says which version of every
table there was (``moments/<number>``). To take a write back is to make those versions the newest again, in a
write of its own. What is to be restored is noted until it is done (``moments/undoing``): who takes the lock
next finishes what a kill cut short. The audit is only ever added to.

What deletes content for good, or versions of tables, leaves a bound: nothing of before it is asked or restored.
"""

from bisect import bisect_left
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from operator import methodcaller
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from registry.answers import Problem
from registry.errors import NotFoundError, StorageError
from registry.records import utc_now
from registry.storage.folders import give_up_unfinished, go_back, is_readable, lost_since
from registry.storage.places import META_TABLE, WHOLE, Moment, groups_of, last_undo, standing_of, storage_errors
from registry.storage.rows import audit_lines
from registry.task_answers import Write

if TYPE_CHECKING:
    from registry.storage.database import Database

KEEP = timedelta(days=7)
MOST_KEPT = 1000  # writes; each is a version of some tables, and their number slows writing down
PARTS = timedelta(minutes=1)  # of a write in parts, between the moments that are noted
READERS = timedelta(minutes=1)  # a version stays longer by; a reader that takes yet longer starts over
UNDOING = "undoing"
DAMAGED = "the note of a write is damaged or lost"
AUDIT, UNASKED = "audit", ["token.limited", "token.jobs"]  # actions that are no writes to take back
SAID = ["at", "host", "process_id", "actor", "action", "subject"]


class Moments:
    """The moments of one registry, noted as it is written."""

    def __init__(self, database: "Database") -> None:
        self._database, self._place = database, database.place
        self._holding: object = None
        self._noted = False
        self._began = ""
        self._before: dict[str, int] = {}  # of the write in progress, once it has written anything

    # While the registry is written, under the lock

    def begin(self) -> None:
        """Where the lock was just taken, and not again within: finish what a kill cut short."""
        holding = self._place.holding()
        if holding is self._holding:
            return
        self._holding, self._noted, self._began, self._before = holding, False, utc_now(), {}
        self._database.notice_changes()
        if note := self._place.read_note(UNDOING):
            # Of one that is damaged, the last moment tells; if that is another write, nothing was restored yet.
            undo = Moment.unsealed(note) or next(iter(self.all()[-1:]), None)
            if undo and (undo.undoes or undo.redoes):
                self._restore(undo)
            self._place.delete_notes([UNDOING])
            self._noted, self._began, self._before = False, utc_now(), {}

    def before_commit(self) -> None:
        """Remember which versions there are, before the first commit of a write."""
        if not self._before:
            names = self._database.table_names()
            for name in names:
                give_up_unfinished(self._database, name)
            self._before = {name: max(self._place.versions(name), default=0) for name in names}

    def before_audit(self) -> None:
        """Note the moment before this write, once; of one in parts that follow one another, once a while."""
        number, whole = self._next_number(), WHOLE.get()
        last = self._place.read_note(str(number - 1)) if whole and not self._noted else b""
        if (one := Moment.unsealed(last)) and one.whole == whole:
            self._noted = datetime.fromisoformat(self._began) - datetime.fromisoformat(one.at) < PARTS
        if not self._noted:
            self._note(Moment(number, self._began, self._before, whole=whole))

    def pass_over(self) -> None:
        """Note no moment before this write, a line of the audit that nobody asked for."""
        self._noted = True

    def forget(self, why: str) -> None:
        """Leave a bound: what is deleted from here on comes back by no undo, and was at no time."""
        self._note(Moment(self._next_number(), self._began, {}, bound=why))
        self._delete(sorted(self._numbers())[:-1])

    def give_up(self, why: str) -> None:
        """Leave a bound, and do not finish what was cut short; for tables of which versions are lost."""
        self._holding, self._began, self._before = self._place.holding(), utc_now(), {}
        self._place.delete_notes([UNDOING])
        self.forget(why)

    def trim(self, keep: timedelta) -> None:
        """Forget moments that are older, or too many; not how a write began of which a part is kept."""
        moments, since = self.all(), (datetime.now(UTC) - keep).isoformat()
        kept = [one for one in moments[-MOST_KEPT:] if one.at >= since] or moments[-1:]
        begun = {group[0] for group in groups_of(moments) if kept and kept[0] in group and kept[0].at >= since}
        first, starts = min((one.number for one in kept), default=0), {one.number for one in begun}
        self._delete([number for number in sorted(self._numbers()) if number < first and number not in starts])
        if kept and kept[0].at < since:
            self._save(replace(kept[0], tables={}, bound="older versions were deleted"))

    def prune(self, table: Any, keep: timedelta) -> None:
        """Delete the versions of a table that are older and that no moment needs; what is newer is on disk."""
        states = [moment.tables for moment in self.all()] + ([] if self._noted else [self._before])
        needed = sorted({tables[table.name] for tables in states if table.name in tables})
        self._place.prune(table, needed, min(keep, READERS))

    # What was, and what is to be again

    def all(self) -> list[Moment]:
        """Those that are noted, in order; a bound in place of one damaged or lost, and of those before it."""
        moments = list[Moment]()
        for number in sorted(
            (int(name) for name in self._place.note_names() if name.isdecimal()), reverse=True
        ):
            one, after = self._moment(number), moments[-1] if moments else None
            is_next = (
                after is None or after.number == number + 1 or bool(one and one.whole == after.whole != "")
            )
            if one is None or not is_next:
                number = number if one is None or after is None else after.number - 1
                moments.append(Moment(number, after.at if after else utc_now(), {}, "", 0, bound=DAMAGED))
                break
            moments.append(one)
        return moments[::-1]

    def _numbers(self) -> list[int]:
        return [int(name) for name in self._place.note_names() if name.isdecimal()]

    def _moment(self, number: int) -> Moment | None:
        return Moment.unsealed(self._place.read_note(str(number)))

    def writes(self) -> list[Write]:
        """What was written since the first moment, in order."""
        groups = groups_of(self.all())
        return self._told(groups, groups)

    def _told(self, groups: list[list[Moment]], chosen: list[list[Moment]]) -> list[Write]:
        """Some adjacent writes of all, by their lines in the audit."""
        if not chosen:
            return []
        ends, following = dict[Moment, str](), dict[tuple[str, int], str]()
        for group in reversed(groups):  # what one process wrote ends where its next write begins
            process = group[0].host, group[0].process_id
            ends[group[0]] = following.get(process, "~")
            following[process] = group[0].since
        first, last = min(one[0].since for one in chosen), max(ends[one[0]] for one in chosen)
        lines = self._database.read(AUDIT, columns=SAID, where=f"at >= '{first}' and at < '{last}'").sort_by(
            "at"
        )
        times, standing = lines["at"].to_pylist(), {one[-1].number for one in standing_of(groups)}
        begins = [bisect_left(times, one[0].since) for one in chosen]
        stops = [bisect_left(times, ends[one[0]]) for one in chosen]
        return [
            _write(one, lines.slice(begin, max(stop - begin, 0)), one[-1].number in standing)
            for one, begin, stop in zip(chosen, begins, stops, strict=True)
        ]

    def undo(self, number: int | None = None, *, redo: bool = False, preview: bool = False) -> Write:
        """Take back the last write that stands, or do again the last one that was taken back.

        What a kill cut short of an undo before is finished instead, if there is any.

        Raises:
            StorageError: If there is none, it cannot be taken back, or another came after it.
        """
        unfinished = self._place.read_note(UNDOING)
        with nullcontext() if preview else self._database.write_lock():
            if unfinished and (moment := Moment.unsealed(unfinished)):
                return self._write(moment.undoes or moment.redoes)
            moments = self.all()
            standing = standing_of(groups_of(moments))
            last = standing[-1] if standing else []
            target = last_undo(moments) if redo else next(iter(last), None)
            if target is None or target.bound:
                raise StorageError(_nothing(target, redo=redo))
            meant = target.undoes if redo else last[-1].number
            if number not in (None, meant):
                raise StorageError(f"write {number} is not the last one any more, {meant} is; look again")
            self._check_kept(target)
            if not preview:
                self.before_commit()
                now = Moment(self._next_number(), self._began, self._before, restores=target.tables)
                self._restore(replace(now, redoes=meant) if redo else replace(now, undoes=meant))
            return self._write(meant)

    def as_of(self, asked: int | datetime) -> tuple[dict[str, int], Moment | None, str]:
        """The state of a time.

        Returns:
            The version of each table; the moment that says so, which must stay; and the state in words.

        Raises:
            NotFoundError: If there is no such write.
            StorageError: If what was then is not kept.
        """
        moments = self.all()
        if isinstance(asked, int):
            last = moments[-1].number if moments else 0
            if asked > last:
                raise NotFoundError("write", str(asked), [str(moment.number) for moment in moments])
            after = next((moment for moment in moments if moment.number > asked), None)
            is_kept = after is None or after.number == asked + 1
            words = f"after write {asked}" if asked else "before write 1"
        else:
            text = asked.isoformat(timespec="microseconds")
            after = next((moment for moment in moments if moment.at > text), None)
            is_kept = bool(moments) and after is not moments[0]
            if not is_kept and not (after and after.bound):
                is_kept = text >= self._since(after.tables if after else self._now())
            words = f"at {text}"
        if not is_kept or (after is not None and after.bound):
            raise StorageError(f"{self._database.uri}: what was {words} is not kept{_kept(moments)}")
        if after is None:
            return self._now(), (moments[-1] if moments else None), words
        return dict(after.tables), after, words

    def _now(self) -> dict[str, int]:
        """The versions of now, of one moment: no write is in progress."""

        def read() -> dict[str, int]:
            names = self._database.table_names()
            return {name: max(self._place.versions(name), default=0) for name in names}

        if not self._place.is_writable():
            return read()
        with self._database.write_lock():
            return read()

    def _since(self, tables: Mapping[str, int]) -> str:
        """When versions of tables were all there."""
        written = [
            one["timestamp"].astimezone(UTC)
            for name, version in tables.items()
            for one in self._database.open_table(name).list_versions()
            if one["version"] == version
        ]
        return max(written).isoformat(timespec="microseconds") if len(written) == len(tables) else "~"

    def _next_number(self) -> int:
        return max(self._numbers(), default=0) + 1

    def _note(self, moment: Moment) -> None:
        self._save(moment)
        self._noted = True

    def _save(self, moment: Moment) -> None:
        self._place.write_note(str(moment.number), moment.sealed())

    def _delete(self, numbers: list[int]) -> None:
        self._place.delete_notes([str(number) for number in numbers])

    def _write(self, number: int) -> Write:
        groups = groups_of(self.all())
        return self._told(groups, [one for one in groups if one[-1].number == number])[0]

    def _check_kept(self, target: Moment) -> None:
        """Fail before anything is restored where a version is gone; ``StorageError`` if one is."""
        for name, version in target.tables.items():
            if name != AUDIT and version not in self._place.versions(name):
                raise StorageError(
                    f"{self._database.uri}: write {target.number} cannot be taken back: version {version} of "
                    f"table {name} is gone"
                )

    def _restore(self, undo: Moment) -> None:
        """Make versions of tables the newest again; done over from the start after a kill."""
        self._place.write_note(UNDOING, undo.sealed())
        self._note(undo)
        database, number = self._database, undo.undoes or undo.redoes
        if max(self._place.versions(AUDIT), default=0) == undo.tables[AUDIT]:
            action = "undo" if undo.undoes else "redo"
            subjects = self._write(number).subjects or (f"write {number}",)
            database.append(AUDIT, audit_lines(action, subjects, write=number))
        # What makes others visible is taken back first, and done again last.
        names = sorted(
            undo.tables.keys() - {AUDIT}, key=lambda name: (name == "tasks", name), reverse=bool(undo.undoes)
        )
        for name in names:
            version = undo.restores.get(name)
            if version is None:  # a table that was not there
                database.commit(name, methodcaller("delete", "true"))
            elif version != max(self._place.versions(name), default=0):
                database.commit(name, methodcaller("restore", version))
        self._place.delete_notes([UNDOING])


def _write(group: list[Moment], lines: pa.Table, stands: bool) -> Write:
    """A write by its lines of the audit: those of its process, not those that it imported."""
    first, last = group[0], group[-1]
    is_own = (pc.field("host") == last.host) & (pc.field("process_id") == last.process_id)
    own = lines.filter(is_own & ~pc.field("action").isin(UNASKED))
    actors, actions, subjects = (tuple(own[name].unique().to_pylist()) for name in SAID[3:])
    actor = next(iter(actors), "")
    return Write(last.number, first.at, actor, actions, subjects, stands, stands and not first.bound)


def _nothing(target: Moment | None, *, redo: bool) -> str:
    if target is None:
        nothing = "the last write is no undo, so there is nothing to do again"
        return nothing if redo else "there is no write to undo"
    return f"write {target.number} cannot be taken back, nor what was before it: {target.bound}"


def _kept(moments: list[Moment]) -> str:
    """From when on states are kept, as the end of a sentence."""
    first = next((moment for moment in moments if not moment.bound), None)
    bound = next((f": {moment.bound}" for moment in moments if moment.bound), "")
    return f"{bound}; kept is what was from write {first.number - 1} on, {first.at}" if first else bound


def torn_tables(database: "Database", *, repair: bool) -> list[Problem]:
    """Tables with versions that a power cut left empty or cut short; repair goes back to what is whole."""
    problems = []
    names = sorted(database.table_names(), key=lambda name: (name != META_TABLE, name != "audit", name))
    for name in names:
        with suppress(StorageError), storage_errors(name):  # which is reported by the checks that follow
            torn = database.place.torn_versions(name)
            if not torn and (not database.place.is_unlisted(name) or is_readable(database, name)):
                continue
            lost = go_back(database, name) if repair else []
            version = f"version {', '.join(map(str, lost or torn))}" if lost or torn else "the newest version"
            message = f"{version} is empty, cut short or without its data, as a power cut leaves it"
            if lost:
                message += f": {lost_since(database, name, lost)}"
            elif repair:
                message += "; none of before is whole: restore the registry from a copy"
            problems.append(Problem("torn", name, message, bool(lost)))
    return problems
