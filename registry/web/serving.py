"""The process of a server: a port, the application behind it, and an orderly end."""

import signal
import socket
import threading
from types import FrameType

import uvicorn

from registry.errors import StorageError
from registry.web.app import create_app
from registry.web.http.connections import Connections
from registry.web.http.settings import ServeSettings
from registry.web.jobs.jobs import Jobs
from registry.web.pages.pages import warm

BACKLOG = 256  # that wait to be accepted; a fraction of a second of work


class Serving:
    """A server that listens, and answers once it runs."""

    def __init__(self, settings: ServeSettings) -> None:
        """Take the port and the state folder; ``StorageError`` if the port or the folder is not available."""
        self._settings = settings
        self._app = create_app(settings)
        self._socket = _listen(settings.host, settings.port)
        try:
            self._app.state.jobs.open()
        except BaseException:
            self._socket.close()
            raise
        port = self._socket.getsockname()[1]
        shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)
        self.url = f"http://{f'[{shown}]' if ':' in shown and '[' not in shown else shown}:{port}"

    def run(self, *, grace_seconds: int) -> None:
        """Serve until SIGINT or SIGTERM."""
        settings, connections = self._settings, Connections.within_file_limit()
        config = uvicorn.Config(
            self._app,
            http=connections.protocol,  # type: ignore[arg-type]  # what makes one, in place of its class
            backlog=connections.burst,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=bool(settings.proxies),
            forwarded_allow_ips=list(settings.proxies),
            timeout_graceful_shutdown=grace_seconds,
            ws="none",
        )
        server = _Server(config, self._app.state.jobs)
        threading.Thread(target=warm, args=(self._app.state.registry,), daemon=True).start()
        with self._socket:
            server.run(sockets=[self._socket])


class _Server(uvicorn.Server):
    """Ends the answers that follow jobs as soon as it begins to stop."""

    def __init__(self, config: uvicorn.Config, jobs: Jobs) -> None:
        super().__init__(config)
        self._jobs = jobs

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen; more may wait than are accepted at once, or they would try again a second later."""
        await super().startup(sockets)
        for listening in sockets or ():
            listening.listen(BACKLOG)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop, which is no error, unlike in uvicorn; another interrupt ends at once."""
        self._jobs.announce_end()
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens; ``StorageError`` if the port is taken, or the address is none of this machine."""
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
        family, kind, protocol, _, address = addresses[0]
        # With the protocol: asyncio switches Nagle's algorithm off only where it sees TCP; 40 ms an answer.
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise StorageError(f"{host} is no address that can be listened on: {error.strerror}") from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        raise StorageError(
            f"{host}:{port} cannot be listened on: {error.strerror}; choose another --port, or 0 for any"
        ) from error
    listening.setblocking(False)
    return listening
