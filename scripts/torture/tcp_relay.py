"""Hand on connections to another port; killing it looks like the death of the server at it.

python scripts/torture/tcp_relay.py LISTEN_PORT TARGET_PORT
"""

import socket
import sys
import threading


def main() -> None:
    """Listen until killed."""
    listen, target = map(int, sys.argv[1:])
    with socket.create_server(("127.0.0.1", listen), backlog=64) as server:
        print("ready", flush=True)
        while True:
            client, _ = server.accept()
            try:
                upstream = socket.create_connection(("127.0.0.1", target))
            except OSError:
                client.close()
                continue
            for source, sink in ((client, upstream), (upstream, client)):
                threading.Thread(target=pump, args=(source, sink), daemon=True).start()


def pump(source: socket.socket, sink: socket.socket) -> None:
    """Copy one direction to its end."""
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        source.close()
        sink.close()


if __name__ == "__main__":
    main()
