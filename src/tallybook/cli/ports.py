"""A TCP port that several API processes share."""

import http.client
import socket

from tallybook.embedded.failures import EmbeddedError

_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared with, not listened on
_OK = 200


class SharedPort:
    """Keeps a port for this process's children, which listen on it with SO_REUSEPORT; no stranger takes it meanwhile.

    Sharing is silent: a second installation on the same port would get half of the first one's requests. So the port is first
    bound alone. Raises EmbeddedError when somebody has it.
    """

    def __init__(self, host: str, port: int) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            with socket.socket(family, socket.SOCK_STREAM) as alone:
                alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                alone.bind((host, port))
                free_port: int = alone.getsockname()[1]
            self._kept = socket.socket(family, socket.SOCK_STREAM)
            self._kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            self._kept.bind((host, free_port))
        except OSError as error:
            raise EmbeddedError(f"port {port} on {host} can't be used ({error.strerror}): choose another with --port") from error
        self.host = host
        self.port = free_port

    @property
    def url(self) -> str:
        """Where a client on this machine reaches it."""
        host = _ANY_ADDRESS.get(self.host, self.host)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    def is_ready(self) -> bool:
        """Whether `/readyz` answers yes."""
        connection = http.client.HTTPConnection(_ANY_ADDRESS.get(self.host, self.host), self.port, timeout=2.0)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == _OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def close(self) -> None:
        """Let others have the port."""
        self._kept.close()
