"""Make the published content that ships: results of real experts on tasks elsewhere, experts, and aliases.

    python scripts/make/make_published.py ../shared/tables/public --costs timm_costs.jsonl

Reads tables with the columns task, expert, metric, protocol, accuracy, source, and ``mteb_experts.csv``; which
of them may ship, under which licence, is said in ``TABLES``. What timm and torchvision say of their networks is
asked of the installed versions. Parameters and multiply-adds of timm's networks are those of
``scripts/make/count_timm.py``; without --costs, those that the files hold already are kept. Same tables,
versions and costs: same bytes.

Aliases say that two names are the same weights. Each comes from a place that says so: the file that two
libraries download (its name holds its hash), the hub address in open_clip's or timm's own list of weights, or
the column ``timm`` of the table of MTEB's experts. Where two of those disagree, or results of the two names do,
there is none.
"""

import csv
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import click
import pyarrow as pa
import pyarrow.parquet as pq

from indexer.networks.hubs import timm_configs
from indexer.networks.zoo import ZooNetwork, describe_timm, describe_torchvision
from registry.builtin.published import (
    ALIASES_FILE,
    EXPERTS_FILE,
    FOLDER,
    RESULTS_FILE,
    PublishedExpert,
    canonical_name,
)
from registry.recommend.attributes import attributes_of


@dataclass(frozen=True)
class Table:
    """A table that may ship: its tasks' prefix, its licence, and what its tasks are made of."""

    prefix: str
    license: str
    content: str = "images"


TABLES = {
    "clip_linear_probe": Table("clip_benchmark", "MIT"),
    "medmnist_plus": Table("medmnist_plus", "Apache-2.0"),
    "model_spider": Table("model_spider", "MIT"),
    "mteb_image": Table("mteb", "CC0-1.0"),
    "mteb_text_english": Table("mteb", "CC0-1.0", "texts"),
    "open_clip_zero_shot": Table("open_clip", "MIT"),
    "timm_imagenet_variants": Table("timm", "Apache-2.0"),
    "vtab": Table("vtab", "Apache-2.0"),
}
NO_EXPERTS = {"baseline/Human", "mteb/baseline-random-encoder"}
LOADED = re.compile(r"(laion/CLIP-|openai/clip-|google/siglip-|facebook/dinov2-)")
"""Networks of images on the hub of which transformers takes the part for images."""
NO_LICENSES = {"not specified", "other", "unknown", ""}
MOST_DIFFERENCE = 0.002
"""Between results of two names of the same weights on one task in one protocol: rounding and chance."""

CLIP_NAMES = Path(__file__).parents[1] / "lib" / "open_clip_names.csv"
"""open_clip's name, its address on the hub, and timm's name of its part for images; empty where there is none.

Where timm has the same weights with another activation (OpenAI's, DFN's and MetaCLIP's QuickGELU), only the
network that computes the same is named.
"""


@click.command()
@click.argument("tables", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--costs", type=click.Path(exists=True, path_type=Path), help="Of scripts/make/count_timm.py.")
@click.option("--out", type=click.Path(path_type=Path), default=FOLDER, help="Folder that is written.")
def main(tables: Path, costs: Path | None, out: Path) -> None:
    """Write the published content of the folder TABLES."""
    results = [row for name, table in TABLES.items() for row in read_results(tables / f"{name}.csv", table)]
    results.sort(key=lambda row: (row["task"], row["expert"], row["protocol"]))
    hub_rows = list(csv.DictReader((tables / "mteb_experts.csv").open(encoding="utf-8")))
    aliases = agreeing(find_aliases(hub_rows), results)
    known = {expert.name: expert for expert in make_experts(results, hub_rows, aliases)}
    if costs:
        known = add_costs(known, costs)
    elif (out / EXPERTS_FILE).exists():
        known = keep_costs(known, out)
    write_all(results, list(known.values()), aliases, out)
    for file in (RESULTS_FILE, EXPERTS_FILE, ALIASES_FILE):
        click.echo(f"{out / file}: {(out / file).stat().st_size / 1000:.0f} kB")
    click.echo(f"{len(results)} results of {len(known)} experts, {len(aliases)} aliases")


def read_results(path: Path, table: Table) -> Iterable[dict[str, Any]]:
    """Rows of a table as columns of ``PublishedResult``; accuracies in ten-thousandths, as published."""
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["expert"] not in NO_EXPERTS:
                yield {
                    "task": f"{table.prefix}.{allowed(row['task'], slash=False)}",
                    "expert": canonical_name(allowed(row["expert"]), {}),
                    "metric": row["metric"],
                    "protocol": row["protocol"],
                    "accuracy": round(float(row["accuracy"]) * 10_000),
                    "source": re.sub(r" \([^()]*\)$", "", row["source"]),
                    "license": table.license,
                    "content": table.content,
                }


def allowed(name: str, *, slash: bool = True) -> str:
    """A name of characters that names may have."""
    return re.sub(rf"[^A-Za-z0-9._{'/:' if slash else ''}-]+", "-", name).strip("-")


def find_aliases(hub_rows: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Names to canonical names, from all places that say so; what they disagree on is left out.

    Raises:
        ClickException: If the installed timm lacks a network that ``CLIP_NAMES`` names.
    """
    said: dict[str, set[str]] = defaultdict(set)
    torchvision = describe_torchvision()
    by_file = {network.cached_as: network.name for network in torchvision}
    weights_of: dict[str, list[str]] = defaultdict(list)
    for network in torchvision:
        weights_of[network.name.partition(".")[0]].append(network.name)
    timm_names = timm_configs()
    canonical = {}
    for name, config in timm_names.items():
        architecture, _, tag = name.partition(".")
        if config.url and (same := by_file.get(f"torch:{config.url.rpartition('/')[2]}")):
            canonical[name] = same
        elif tag == "tv_in1k" and len(weights_of[architecture]) == 1:  # their one state of weights
            canonical[name] = weights_of[architecture][0]
        if config.hf_hub_id and not config.hf_hub_id.startswith("timm/") and not config.hf_hub_filename:
            said[config.hf_hub_id].add(name)
    for name, same in canonical.items():
        said[name].add(same)
    clip_rows = list(csv.DictReader(CLIP_NAMES.open(encoding="utf-8")))
    for row in clip_rows:
        if row["timm"] and row["timm"] not in timm_names:
            raise click.ClickException(f"timm has no {row['timm']}")
        said[f"open_clip:{row['open_clip']}"].add(row["timm"] or row["hub"])
        if row["timm"] and row["hub"]:
            said[row["hub"]].add(row["timm"])
    taken = {row["hub"] for row in clip_rows}
    for row in hub_rows:
        if row["timm"] in timm_names and row["expert"] not in taken:
            said[row["expert"]].add(row["timm"])
    found = {name: next(iter(targets)) for name, targets in said.items() if len(targets) == 1}
    return {name: found.get(target, target) for name, target in sorted(found.items()) if name != target}


def agreeing(aliases: Mapping[str, str], results: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Aliases of which no two names have results that differ."""
    measured: dict[tuple[str, str, str], dict[str, int]] = defaultdict(dict)
    for row in results:
        name = aliases.get(row["expert"], row["expert"])
        measured[name, row["task"], row["protocol"]][row["expert"]] = row["accuracy"]
    apart = {
        name
        for (name, _, _), values in measured.items()
        if max(values.values()) - min(values.values()) > 10_000 * MOST_DIFFERENCE
    }
    for name in sorted(apart):
        click.echo(f"{name}: its names have different results, so those are no aliases", err=True)
    return {name: same for name, same in aliases.items() if same not in apart}


def make_experts(
    results: Iterable[Mapping[str, Any]], hub_rows: Iterable[Mapping[str, str]], aliases: Mapping[str, str]
) -> list[PublishedExpert]:
    """Every expert that was measured or that timm or torchvision offer, by its canonical name, sorted."""
    known: dict[str, PublishedExpert] = {}
    for network in describe_timm():
        if network.name not in aliases:
            known[network.name] = of_zoo(network)
    for network in describe_torchvision():
        known[network.name] = of_zoo(network)
    cards = {allowed(row["expert"]): row for row in hub_rows}
    top1: dict[str, float] = {}
    for row in results:
        name = aliases.get(row["expert"], row["expert"])
        if row["task"] == "timm.imagenet1k":
            top1[name] = row["accuracy"] / 10_000
        if name not in known:
            known[name] = of_hub(name, row["content"], cards.get(name, {}))
    said = {name: replace(expert, imagenet_accuracy=top1.get(name)) for name, expert in known.items()}
    return [with_attributes(said[name]) for name in sorted(said)]


def of_zoo(network: ZooNetwork) -> PublishedExpert:
    """An expert as its library describes it."""
    return PublishedExpert(
        network.name,
        "images",
        loader=network.loader,
        num_params=network.num_params,
        flops=network.flops,
        input_size=network.input_size,
        license=network.license,
    )


def of_hub(name: str, content: Any, card: Mapping[str, str]) -> PublishedExpert:
    """An expert as the table of MTEB's experts describes it, if it does."""
    license_name = card.get("license", "").lower()
    is_open = card.get("open_weights", "True") == "True"
    loads = is_open and (LOADED.match(name) or (content == "texts" and card and "/" in name))
    return PublishedExpert(
        name,
        content,
        loader=f"hf:{name}" + ("?pooling=mean" if content == "texts" else "") if loads else "",
        num_params=int(card["num_params"]) if card.get("num_params") else None,
        width=int(card["embed_dim"]) if card.get("embed_dim") else None,
        license="" if license_name in NO_LICENSES or ":" in license_name else license_name,
        open_weights=is_open,
    )


def with_attributes(expert: PublishedExpert) -> PublishedExpert:
    """With what its name says."""
    said = asdict(attributes_of(expert.name))
    del said["distilled"]
    return replace(expert, **said)


def add_costs(known: Mapping[str, PublishedExpert], costs: Path) -> dict[str, PublishedExpert]:
    """Add the parameters, multiply-adds and widths of timm's networks, as ``count_timm.py`` counted them."""
    counted = {
        (name, classes, tuple(size)): row
        for row in map(json.loads, costs.read_text(encoding="utf-8").splitlines())
        for name, classes, size in [row["key"]]
    }
    found = dict(known)
    for name, config in timm_configs().items():
        row = counted.get((name.partition(".")[0], config.num_classes, tuple(config.input_size)))
        if row and name in found:
            values = {"num_params": row["params"], "flops": row["flops"], "width": row["width"]}
            found[name] = replace(found[name], **{key: value for key, value in values.items() if value})
    return found


def keep_costs(known: Mapping[str, PublishedExpert], folder: Path) -> dict[str, PublishedExpert]:
    """With those that the files hold already."""
    rows = {row["name"]: row for row in pq.read_table(folder / EXPERTS_FILE).to_pylist()}
    found = dict(known)
    for name, expert in known.items():
        if expert.loader.startswith("timm:") and name in rows:
            found[name] = replace(expert, **{key: rows[name][key] for key in ("num_params", "flops", "width")})
    return found


def write_all(
    results: list[dict[str, Any]], experts: list[PublishedExpert], aliases: Mapping[str, str], folder: Path
) -> None:
    """The three files."""
    texts = pa.dictionary(pa.int32(), pa.string())
    columns = {
        name: pa.array([row[name] for row in results], pa.int16() if name == "accuracy" else pa.string())
        for name in results[0]
    }
    coded = {
        name: column if name == "accuracy" else column.dictionary_encode().cast(texts)
        for name, column in columns.items()
    }
    _write(pa.table(coded), folder / RESULTS_FILE)
    types = {"imagenet_accuracy": pa.float64(), "open_weights": pa.bool_()}
    integers = {"num_params", "flops", "input_size", "width", "source_size"}
    names = [field.name for field in fields(PublishedExpert)]
    _write(
        pa.table(
            {
                name: pa.array(
                    [getattr(expert, name) for expert in experts],
                    pa.int64() if name in integers else types.get(name, pa.string()),
                )
                for name in names
            }
        ),
        folder / EXPERTS_FILE,
    )
    _write(pa.table({"name": list(aliases), "canonical": list(aliases.values())}), folder / ALIASES_FILE)


def _write(table: pa.Table, path: Path) -> None:
    pq.write_table(table, path, compression="zstd", compression_level=19, write_statistics=False)


if __name__ == "__main__":
    main()
