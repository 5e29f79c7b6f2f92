"""Small valid records for tests; every field can be given by name."""

import hashlib
import json
import zlib
from typing import Any

import numpy as np

from registry.records import EmbeddingRecord, ExpertRecord, ResultRecord, SpaceRecord, TaskRecord

DIM = 4
DOMAIN_DIM = 3
CREATED_AT = "2024-05-06T07:08:09+00:00"


def make_space(
    space_id: str = "space0", *, dim: int = DIM, domain_dim: int = DOMAIN_DIM, **changes: Any
) -> SpaceRecord:
    """A space of D ``dim`` and F ``domain_dim``, its trivial embedding all 0.01."""
    values: dict[str, Any] = {
        "space_id": space_id,
        "probe": "tiny.test",
        "description": '{"probe":"tiny.test"}',
        "probe_source": "tiny.test",
        "trivial": np.full(dim, 0.01, dtype=np.float32),
        "domain_dim": domain_dim,
    }
    return SpaceRecord(**values | changes)


def make_true_space(dim: int = DIM, **changes: Any) -> SpaceRecord:
    """A space whose id is that of its description, as one that goes into a bundle must be."""
    description = json.dumps({"probe": "tiny.test", "dim": dim}, separators=(",", ":"), sort_keys=True)
    space_id = hashlib.blake2b(description.encode(), digest_size=8).hexdigest()
    return make_space(space_id, **{"dim": dim, "description": description} | changes)


def make_task(name: str = "flowers", version: int = 1, **changes: Any) -> TaskRecord:
    """A task of two classes."""
    values: dict[str, Any] = {
        "name": name,
        "version": version,
        "data": f"./{name}",
        "num_classes": 2,
        "num_samples": 100,
        "class_names": ("no", "yes"),
        "fingerprint": f"fingerprint-{name}-{version}",
        "settings": "max_samples=2000 seed=0",
        "created_at": CREATED_AT,
    }
    return TaskRecord(**values | changes)


def make_embedding(
    task: str = "flowers", version: int = 1, *, dim: int = DIM, domain_dim: int = DOMAIN_DIM, **changes: Any
) -> EmbeddingRecord:
    """An embedding with random positive vectors, the same for the same task, version and widths."""
    generator = np.random.default_rng(zlib.crc32(f"{task}@{version}".encode()))
    fisher = generator.lognormal(-3, 1, dim).astype(np.float32)
    values: dict[str, Any] = {
        "task": task,
        "version": version,
        "fisher": fisher,
        "standard_error": fisher / 10,
        "domain": generator.normal(size=domain_dim).astype(np.float32),
        "num_samples_used": 100,
        "head_accuracy": 0.75,
        "head_loss": 0.5,
        "seed": 0,
        "seconds": 1.5,
    }
    return EmbeddingRecord(**values | changes)


def make_expert(name: str = "resnet18.tv_in1k", **changes: Any) -> ExpertRecord:
    """An expert of eleven million parameters."""
    values: dict[str, Any] = {
        "name": name,
        "loader": name,
        "num_params": 11_000_000,
        "flops": 1_800_000_000,
        "input_size": 224,
        "license": "bsd-3-clause",
        "created_at": CREATED_AT,
    }
    return ExpertRecord(**values | changes)


def make_result(
    task: str = "flowers", expert: str = "resnet18.tv_in1k", accuracy: float = 0.9, **changes: Any
) -> ResultRecord:
    """A result of accuracy 0.9."""
    values: dict[str, Any] = {"task": task, "expert": expert, "accuracy": accuracy, "created_at": CREATED_AT}
    return ResultRecord(**values | changes)
