"""Import bundles that were changed anyhow, and count what ran, was half imported, not finite or a traceback.

    python scripts/torture/torture_bundles.py --bundles 10000

Each has some of its bytes, members, tables, columns, rows or values changed, mostly with checksums made anew;
see ``tests/support/bundle_mutations.py``. A canary, a module and the file it makes, watches whether anything
runs. What is taken is read from end to end, verified and asked.
"""

import os
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

import click
from machine import print_machine, save_figures

sys.path.append(str(Path(__file__).parents[2] / "tests" / "support"))


@click.command()
@click.option("--bundles", default=10_000, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Save the figures here.")
def main(bundles: int, seed: int, json_path: Path | None) -> None:
    """Run, print the counts, and exit 1 if anything was as it should not be."""
    from bundle_mutations import Mutator, Target, make_bundle

    warnings.simplefilter("ignore")  # zipfile warns of what is written on purpose
    os.environ["T2V_DURABILITY"] = "normal"
    figures = {"machine": print_machine()}
    start, kinds, told = time.monotonic(), Counter[str](), 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        mutator, target = Mutator(make_bundle(folder), seed), Target(folder)
        os.chdir(folder)
        for _ in range(bundles):
            what = mutator.write(folder / "changed.t2v")
            kinds.update(set(what.split("+")))
            target.take(folder / "changed.t2v", what)
            for fault in target.faults[told:]:
                click.echo(fault, err=True)
            told = len(target.faults)
        os.chdir("/")
    click.echo("changed: " + ", ".join(f"{kind} {count}" for kind, count in kinds.most_common()))
    for kind, count in target.counts.items():
        click.echo(f"{kind:>24} {count}")
    click.echo(f"{time.monotonic() - start:>24.0f} s")
    save_figures(json_path, figures | target.counts | {"kinds": kinds})
    sys.exit(bool(target.faults))


if __name__ == "__main__":
    main()
