"""What every benchmark prints first, and how it saves its figures."""

import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click

LIBRARIES = ("torch", "numpy", "faiss-cpu", "lancedb", "scikit-learn")


def describe_machine(device: str = "cpu") -> dict[str, Any]:
    """Processor, cores, versions and device."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line
        ]
        model = names[0] if names else model
    return {
        "machine": model,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "python": platform.python_version(),
        "device": device,
        **{library: version(library) for library in LIBRARIES},
    }


def print_machine(device: str = "cpu") -> dict[str, Any]:
    """Print what ``describe_machine`` returns, on one line, and return it."""
    machine = describe_machine(device)
    click.echo("  ".join(f"{name} {value}" for name, value in machine.items()))
    return machine


def save_figures(path: Path | None, figures: dict[str, Any]) -> None:
    """Write figures as JSON, if a path was asked for."""
    if path:
        path.write_text(json.dumps(figures, indent=1) + "\n")
