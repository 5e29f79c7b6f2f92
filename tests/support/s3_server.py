"""An S3 server on this machine: moto's, over real HTTP, in a process of its own."""

import os
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterable
from typing import Any

ACCESS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "not-a-secret",
    "AWS_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
"""Environment of its clients, besides the endpoint; the server takes any credentials."""


class S3Server:
    """The server as a process; what it holds is gone when it stops.

    Args:
        settings: Environment of the server, see moto.
    """

    def __init__(self, **settings: str) -> None:
        environment = os.environ | settings
        command = [sys.executable, __file__]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        assert self.url, "the server did not start"
        self._num_buckets = 0

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs."""
        return ACCESS | {"AWS_ENDPOINT_URL": self.url}

    def new_bucket(self) -> str:
        """Make a bucket; its name."""
        self._num_buckets += 1
        name = f"bucket{os.getpid()}-{self._num_buckets}"
        request = urllib.request.Request(f"{self.url}/{name}", method="PUT")
        with urllib.request.urlopen(request) as answer:
            assert answer.status == 200
        return name

    def __enter__(self) -> "S3Server":
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the process."""
        self.process.kill()
        with self.process:  # closes its pipes
            pass


class _OneByOne:
    """An application that answers one request after the other: moto's conditional writes are not atomic."""

    def __init__(self, application: Callable[..., Iterable[bytes]]) -> None:
        self._application = application
        self._lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        with self._lock:
            return list(self._application(environ, start_response))


def serve() -> None:
    """Serve on a free port, whose URL is printed first."""
    from moto.moto_server.werkzeug_app import create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Handler(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"  # connections are kept open

        def log(self, type: str, message: str, *args: Any) -> None:
            pass

    application = _OneByOne(create_backend_app("s3"))
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=Handler)
    sys.stdout.write(f"http://127.0.0.1:{server.server_port}\n")
    sys.stdout.flush()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()  # ends when the process that started this one does, however it ends


if __name__ == "__main__":
    serve()
