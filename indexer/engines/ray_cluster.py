"""The engine ``ray``: work on the machines of a Ray cluster; the sole importer of Ray.

Ray begins work again whose process or machine was lost, ``retries`` times, and spills results that do not fit
its memory to disk; few are ever waiting, as only a little more work is handed out than the cluster can take.
"""

import logging
import os
import socket
from collections.abc import Iterable
from typing import Any

from indexer.engines.work import EngineSettings, Outcome, Outcomes, Work, attempt
from indexer.errors import EngineError, MissingLibraryError

AHEAD = 2
"""Pieces of work handed out for each that the cluster can do at once."""

TICK_SECONDS = 1.0
CONNECT_SECONDS = 10.0
STANDARD_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing of what is done here is reported to anybody
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # what Ray makes the default soon, and warns about until then
}


def run_ray(works: Iterable[Work], settings: EngineSettings) -> Outcomes:
    """Outcomes of work, as they come. A cluster that this process is connected to is used, and left connected.

    Raises:
        MissingLibraryError: If Ray is not installed.
        EngineError: If there is no cluster at the address, or it is lost.
    """
    ray = _import_ray()
    connects = not ray.is_initialized()
    if connects:
        _connect(ray, settings)
    try:
        yield from _run(ray, works, settings)
    finally:
        if connects:
            ray.shutdown()


def _import_ray() -> Any:
    for name, value in STANDARD_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as err:
        raise MissingLibraryError("the engine ray", "ray", "ray") from err
    return ray


def _connect(ray: Any, settings: EngineSettings) -> None:
    """Join the cluster at the address, or start one on this machine; ``EngineError`` if that does not work."""
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if settings.address is None:
        options |= {
            "address": "local",
            "include_dashboard": False,
            "num_cpus": settings.jobs and settings.jobs * settings.threads,
        }
    else:
        options["address"] = settings.address
    _keep_stdout_clean(ray)
    try:
        _check_listens(settings.address)
        ray.init(**options)
    except Exception as err:  # whatever Ray and its sockets raise
        where = settings.address or "this machine"
        raise EngineError(f"there is no Ray cluster at {where}: {type(err).__name__}: {err}") from err


def _keep_stdout_clean(ray: Any) -> None:
    """Have Ray report dead workers on stderr: stdout is for answers. It has no setting for this."""
    worker = ray._private.worker
    write = getattr(worker, "print_to_stdstream", None)
    if write is None or hasattr(write, "on_stderr"):
        return

    def on_stderr(data: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        write({**data, "is_err": True}, *args, **kwargs)

    on_stderr.on_stderr = True  # type: ignore[attr-defined]
    worker.print_to_stdstream = on_stderr


def _check_listens(address: str | None) -> None:
    """Fail at once where nothing listens; Ray itself tries for minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()


def _run(ray: Any, works: Iterable[Work], settings: EngineSettings) -> Outcomes:
    remote = ray.remote(attempt).options(**_resources(settings))
    source = enumerate(works)
    pending: dict[Any, int] = {}
    exhausted = False
    while pending or not exhausted:
        room = AHEAD * _slots(ray, settings) - len(pending)
        while room > 0 and not exhausted:
            number, work = next(source, (-1, None))
            if work is None:
                exhausted = True
            else:
                pending[remote.remote(number, work, settings.threads)] = number
                room -= 1
        if not pending:
            return
        done, _ = ray.wait(list(pending), num_returns=1, timeout=TICK_SECONDS)
        if not done:
            yield None
            continue
        more, _ = ray.wait(list(pending), num_returns=len(pending), timeout=0)
        for reference in more or done:
            yield _outcome(ray, reference, pending.pop(reference), settings)


def _resources(settings: EngineSettings) -> dict[str, Any]:
    wanted: dict[str, Any] = {"num_cpus": settings.threads, "max_retries": settings.retries}
    if settings.gpus_per_task:
        wanted["num_gpus"] = settings.gpus_per_task
    if settings.memory_per_task:
        wanted["memory"] = settings.memory_per_task
    return wanted


def _slots(ray: Any, settings: EngineSettings) -> int:
    """Pieces of work that the cluster can do at once as it is now; ``EngineError`` if it is lost."""
    try:
        cluster = ray.cluster_resources()
    except Exception as err:
        raise EngineError(f"the Ray cluster is lost: {type(err).__name__}: {err}") from err
    slots = int(cluster.get("CPU", 0) / settings.threads)
    if settings.gpus_per_task:
        slots = min(slots, int(cluster.get("GPU", 0) / settings.gpus_per_task))
    return max(1, slots if settings.jobs is None else min(slots, settings.jobs))


def _outcome(ray: Any, reference: Any, number: int, settings: EngineSettings) -> Outcome:
    try:
        outcome: Outcome = ray.get(reference)
    except (
        ray.exceptions.RayTaskError
    ) as err:  # not of the work, but of taking it over or sending what came of it
        last_line = str(err).strip().splitlines()[-1]
        return Outcome(number, error=EngineError(f"Ray could not run it: {last_line}"))
    except ray.exceptions.RayError as err:
        first_line = str(err).strip().partition("\n")[0]
        error = EngineError(f"Ray lost it {settings.retries + 1} times: {type(err).__name__}: {first_line}")
        return Outcome(number, error=error, attempts=settings.retries + 1)
    return outcome
