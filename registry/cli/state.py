"""What ``t2v`` alone says: where the registry is, what it holds, and what to do next. It opens nothing."""

from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from registry.faces import terminal
from registry.options import DEFAULT_PLACE
from registry.storage.cache import read_at_rest

COUNTED = {"tasks": "task versions"}  # removed ones too
ADD_TASK = ("t2v task add NAME ./photos", "register a folder of class folders as a task")
ADD_EXPERTS = ("t2v expert import torchvision", "experts to choose from; nothing is downloaded")
ADD_RESULT = ("t2v result add NAME EXPERT ...", "what you measured makes answers surer")
ASK = ("t2v recommend ./photos", "which expert to start from")
DEMO = ("t2v demo", "the main job on real data, in a minute")
LOOK = ("t2v serve", "the registry in a browser")
HELP = ("t2v --help", "all commands")


def show_state(uri: str | None) -> None:
    """Print where a registry is, what it holds and which commands make sense next."""
    place = uri or DEFAULT_PLACE
    with suppress(RuntimeError):  # a home of nobody holds no registry
        place = place if "://" in place else str(Path(place).expanduser())
    state = None if "://" in place else read_at_rest(Path(place))
    if "://" in place:
        values, steps = {"holds": "`t2v task list` lists the tasks of an object store"}, [ASK, ADD_TASK, LOOK]
    elif state is None:
        values, steps = {"holds": "nothing: the first write makes a registry here"}, [DEMO, ADD_TASK]
    else:
        written = datetime.fromtimestamp(state.written_at, UTC)
        counts = {COUNTED.get(table, table): f"{count:,}" for table, count in state.rows.items()}
        values = {**counts, "last write": f"{written:%Y-%m-%d %H:%M} UTC"}
        missing = {"tasks": ADD_TASK, "experts": ADD_EXPERTS, "results": ADD_RESULT}
        steps = [step for table, step in missing.items() if not state.rows[table]] or [ASK, ADD_TASK]
        steps.append(LOOK)
    terminal.card(place, values, what="registry", heading=f"Registry {place}")
    terminal.message("Next:")
    for command, purpose in (*steps, HELP):
        terminal.message(f"  {command:32}{purpose}")
