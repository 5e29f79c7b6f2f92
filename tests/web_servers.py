"""A server in this process, for tests."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fastapi.testclient import TestClient

from registry.web.app import create_app
from registry.web.settings import ServeSettings, UploadLimits

TOKEN = "a-token-of-32-characters-or-more"
URL = "http://127.0.0.1:8000"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


def settings_of(registry: Path | str, state: Path, **changes) -> ServeSettings:
    """Settings of a server on loopback."""
    return ServeSettings(**{"uri": str(registry), "token": TOKEN, "state": state, **changes})


@contextmanager
def serving(registry: Path | str, state: Path, *, url: str = URL, **changes) -> Iterator[TestClient]:
    """A client of a server that has started; without the token."""
    app = create_app(settings_of(registry, state, **changes))
    with TestClient(app, base_url=url, follow_redirects=False) as client:
        yield client


def small_limits(**changes) -> UploadLimits:
    """Limits that a test can reach."""
    return UploadLimits(
        **{
            "upload_bytes": 2**20,
            "unpacked_bytes": 2**20,
            "files": 50,
            "pixels": 100_000,
            "seconds": 5.0,
            **changes,
        }
    )
