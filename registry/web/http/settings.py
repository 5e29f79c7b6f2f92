"""How a server is set up."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class UploadLimits:
    """What an upload may hold; one byte or file more is refused."""

    upload_bytes: int = 512 * 2**20  # bytes of the zip as it is sent
    unpacked_bytes: int = 2 * 2**30  # bytes of all its files together
    files: int = 100_000
    pixels: int = 50_000_000
    seconds: float = 600.0  # seconds that sending it may take


@dataclass(frozen=True)
class ServeSettings:
    """How a server is set up.

    Attributes:
        proxies: Addresses of reverse proxies, whose ``X-Forwarded-For`` and ``X-Forwarded-Proto`` are believed.
        rate: Requests a second of one token, or of one address without one, on the average; 0 for any number.
    """

    uri: str | None
    token: str = field(repr=False)  # the single token, of an admin; empty if there are named ones only
    state: Path  # folder of uploads and jobs; made if it is missing
    host: str = "127.0.0.1"
    port: int = 8000  # port to listen on; 0 for any that is free
    builtin: bool = True  # whether starter content is part of lists and answers
    roots: tuple[Path, ...] = ()  # folders under which a path on the server may be given as data
    hosts: tuple[str, ...] = ()  # further names by which it is reached, such as that of a reverse proxy
    proxies: tuple[str, ...] = ()
    rate: float = 50.0
    workers: int = 1  # number of jobs that run at once
    upload_seconds: float = 24 * 3600.0  # how long an upload is kept unless a job makes a task of it
    job_seconds: float = 7 * 24 * 3600.0  # how long a job is kept after its end
    limits: UploadLimits = field(default_factory=UploadLimits)  # limits of uploads

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        return self.host in {"127.0.0.1", "::1", "localhost"}
