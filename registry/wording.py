"""Words and numbers as people read them, on the command line and on pages alike."""

import math
import re
from collections.abc import Mapping

KINDS: dict[str, str] = {
    "single_label": "single-label",
    "multi_label": "multi-label",
    "regression": "regression",
}
"""Kinds of tasks in words."""

GROUPS: dict[str, str] = {"single_label": "classes", "multi_label": "labels", "regression": "targets"}
"""What the names of a task are names of."""

STAGES = {
    "decode": "Reading images",
    "features": "Computing features",
    "fisher": "Measuring the task",
    "trials": "Trying experts",
    "distances": "Comparing tasks",
    "placing": "Placing tasks",
    "measuring": "Measuring the map",
}
"""Stages of long work in words; a stage that is not here is called by its own name."""

LEFT_OUT = {
    "toys": ("toy", "toys"),
    "experts": ("of another name", "of other names"),
    "same weights": ("other name of the same weights", "other names of the same weights"),
}
"""What leaves experts out of an answer, where it is no limit that was set: of one, and of more."""


def left_out(reason: str, count: int) -> str:
    """How many experts something left out, in words, such as ``25 toys`` or ``3 by max params``."""
    if reason in LEFT_OUT:
        return f"{count} {LEFT_OUT[reason][count > 1]}"
    return f"{count} by {reason.replace('_', ' ')}"


SURENESS = {
    "high": "high: hardly any chance that another is better by more than 0.01",
    "medium": "medium: another may be better by more than 0.01",
    "low": "low: most likely another is better by more than 0.01",
}
"""How sure it is that nothing much better was passed over; ``registry.recommend.verdict`` has the chances."""


def sureness(confidence: str, compared: int) -> str:
    """The confidence of a verdict in words; of a single expert there is none."""
    if compared == 1:
        return "none: there is no other to compare it with"
    return SURENESS[confidence]


PROTOCOLS = (
    (r"linear_probe_full", "of a linear probe on all of the data"),
    (r"linear_probe_(\d+)shot", r"of a linear probe, \1 samples a class"),
    (r"linear_probe.*", "of a linear probe"),
    (r"fine_?tuned?_(\d+)shot", r"after fine-tuning on \1 samples a class"),
    (r"fine_?tuned?_(\d+)", r"after fine-tuning on \1 samples"),
    (r"fine_?tun.*", "after fine-tuning"),
    (r"knn_(\d+)", r"of \1 nearest neighbours"),
    (r"zero_shot", "without any training"),
    (r"as_pretrained", "as pretrained"),
)


def describe_way(way: tuple[str, str]) -> str:
    """A metric and a protocol in words, such as ``accuracy of a linear probe, 20 samples a class``."""
    metric, protocol = way
    for pattern, words in PROTOCOLS:
        match = re.fullmatch(pattern, protocol)
        if match:
            return f"{metric.replace('_', ' ')} {match.expand(words)}"
    return f"{metric.replace('_', ' ')} ({protocol})"


INTERNAL = "something went wrong inside the server; its log says what"


def printable(text: str) -> str:
    """The text with control characters, which file names may hold, spelled out; terminals obey them."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def share(value: float) -> str:
    """A number from 0 to 1; an R² may be less."""
    return f"{value:.3f}"


def short(value: float) -> str:
    """A number of any scale."""
    return f"{value:.4g}"


def nearer(than: float | None) -> str:
    """What a distance means among those of all pairs of tasks, such as ``nearer than 83% of pairs``."""
    if than is None:
        return ""
    if 0.005 <= than < 0.995:
        return f"nearer than {than:.0%} of pairs"
    return f"{'nearer' if than > 0.5 else 'farther'} than {'' if than in {0, 1} else 'nearly '}all pairs"


_FACTORS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9, "t": 1e12}


def parse_size(text: str) -> float | None:
    """The number in a text such as ``30M`` or ``1.5k``; ``None`` if it is no positive one."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]*)?(?:e[0-9]+)?)([kmgbt]?)", text.strip(), re.IGNORECASE)
    number = float(match[1]) * _FACTORS[match[2].lower()] if match else math.nan
    return number if math.isfinite(number) and number > 0 else None


def size(value: int | None) -> str:
    """A count as people write it: 11.2M."""
    if value is None:
        return "-"
    rounded = float(f"{value:.3g}")
    for suffix, factor in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if rounded >= factor:
            return f"{rounded / factor:.15g}{suffix}"
    return str(value)


NUM_REASONS = 6


def counted(counts: Mapping[str, int]) -> str:
    """Files by reason, the most first, in words."""
    ranked = sorted(counts.items(), key=lambda item: -item[1])
    more = [f"{sum(count for _, count in ranked[NUM_REASONS:])} others"] if len(ranked) > NUM_REASONS else []
    return ", ".join([f"{count} {reason}" for reason, count in ranked[:NUM_REASONS]] + more)
