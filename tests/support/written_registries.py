"""Questions to a registry of a few tasks, every kind of write to it, and what becomes of files of caches."""

from pathlib import Path

from builders import make_embedding, make_expert, make_result, make_task
from click.shell_completion import BashComplete
from command_lines import EXPERT, SETTINGS, t2v
from small_stores import SPACE

from registry import TaskRegistry
from registry.cli.completion import VARIABLE
from registry.cli.main import main

QUESTIONS = [
    ("nearest", "flowers"),
    ("nearest", "flowers@1", "--json", "--where", "num_classes < 100", "-k", "3"),
    ("distance", "flowers", "birds", "--json"),
    ("task", "list"),
    ("--no-builtin", "task", "list", "--json"),
    ("task", "list", "--json", "--where", "tags = 'b' or name like 'f%'"),
    ("task", "show", "flowers", "--json"),
    ("task", "show", "gone"),
    ("expert", "list", "--json"),
    ("expert", "show", EXPERT, "--json"),
    ("result", "list", "--json"),
    ("result", "list", "--task", "flowers"),
    ("history",),
    ("complete", "task", "show"),
    ("complete", "expert", "show"),
    ("complete", "--no-builtin", "task", "show"),
]


def answers(folder, questions=QUESTIONS):
    """Whatever commands print, and what a shell completes."""

    def answer(command, *words):
        if command == "complete":
            shell = BashComplete(main, {}, "t2v", VARIABLE)
            return [item.value for item in shell.get_completions(["--registry", str(folder), *words], "")]
        done = t2v(folder, command, *words)
        return f"{done.output}{done.exit_code}"

    return [answer(*words) for words in questions]


def writes():
    """Every kind of write, by name, as what does it to a registry."""

    def bundled(registry):
        path, other = Path(registry.uri).with_suffix(".t2v"), TaskRegistry(f"{registry.uri}.other")
        other.init(empty=True)
        other._store.add_experts([make_expert("imported.net")])
        other.export(path)
        registry.import_bundle(path)

    def restored(registry):
        registry.remove_task("birds")
        registry.restore_task("birds")

    return {
        "add": lambda r: r._store.add_task(make_task("new", settings=SETTINGS), SPACE, make_embedding("new")),
        "version": lambda r: r._store.add_task(
            make_task("flowers", 2, settings=SETTINGS), SPACE, make_embedding("flowers", 2)
        ),
        "tag": lambda r: r.tag_task("flowers", add=["b"]),
        "alias": lambda r: r.alias_task("flowers@1", "champion"),
        "unalias": lambda r: r.unalias_task("flowers", "champion"),
        "move": lambda r: r._store.move_tasks([r.task("flowers")], "/elsewhere"),
        "expert": lambda r: r._store.add_experts([make_expert("another.net")]),
        "expert_alias": lambda r: r.alias_expert("another.net", "other.name"),
        "expert_remove": lambda r: r.remove_expert("another.net"),
        "expert_restore": lambda r: r.restore_expert("another.net"),
        "expert_purge": lambda r: r.remove_expert("another.net", purge=True),
        "result": lambda r: r._store.add_results([make_result("flowers", EXPERT, accuracy=0.123)]),
        "remove": lambda r: r.remove_task("birds"),
        "restore": lambda r: r.restore_task("birds"),
        "remove_and_restore": restored,
        "optimize": lambda r: r.optimize(),
        "repair": lambda r: r.verify(repair=True),
        "bundle": bundled,
        "purge": lambda r: r.remove_task("birds", purge=True),
    }


DAMAGES = {
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:-7]),
    "empty": lambda path: path.write_bytes(b""),
    "zeroed": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "bit": lambda path: path.write_bytes(bytes([*path.read_bytes()[:99], 1, *path.read_bytes()[100:]])),
    "foreign": lambda path: path.write_bytes(b'{"format": 1}\n[1, 2]'),
    "deleted": lambda path: path.unlink(),
    "folder": lambda path: (path.unlink(), path.mkdir()),
}
