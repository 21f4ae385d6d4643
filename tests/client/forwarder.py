"""A line to a service that can be cut: TCP in, TCP out."""

import contextlib
import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager
from urllib.parse import urlsplit


class Forwarder:
    """Listens on a port of its own for as long as it is up."""

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        self._target = (parts.hostname or "127.0.0.1", parts.port or 80)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._port = self._listening.getsockname()[1]
        self._open: list[socket.socket] = []
        self.url = f"http://127.0.0.1:{self._port}"
        self._serve()

    def cut(self) -> None:
        """Refuse new connections and break those that are."""
        # A thread that waits in accept keeps the port open until it is woken.
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for each in self._open:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        self._open.clear()

    def mend(self) -> None:
        """Listen again, on the same port."""
        self._listening = socket.create_server(("127.0.0.1", self._port), reuse_port=False)
        self._serve()

    def _serve(self) -> None:
        threading.Thread(target=self._accept, args=(self._listening,), daemon=True).start()

    def _accept(self, listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                caller, _ = listening.accept()
                service = socket.create_connection(self._target)
                self._open += [caller, service]
                for source, sink in ((caller, service), (service, caller)):
                    threading.Thread(target=_pump, args=(source, sink), daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


@contextmanager
def line(target: str) -> Generator[Forwarder]:
    """A line to `target` until the end of the block."""
    forwarder = Forwarder(target)
    try:
        yield forwarder
    finally:
        forwarder.cut()
