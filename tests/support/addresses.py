"""Addresses at which nobody answers as hoped: real sockets of this machine."""

import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

LOCAL = "127.0.0.1"


@contextmanager
def silent() -> Iterator[str]:
    """Takes connections, and never says a word."""
    with closing(socket.create_server((LOCAL, 0))) as listening:
        yield f"{LOCAL}:{listening.getsockname()[1]}"


@contextmanager
def dropping() -> Iterator[str]:
    """Answers no packet, as behind a firewall: its queue of connections is full."""
    with ExitStack() as stack:
        listening = stack.enter_context(closing(socket.create_server((LOCAL, 0), backlog=0)))
        for _ in range(3):
            waiting = stack.enter_context(closing(socket.socket()))
            waiting.setblocking(False)
            with suppress(BlockingIOError):
                waiting.connect(listening.getsockname())
        yield f"{LOCAL}:{listening.getsockname()[1]}"


class _Page(BaseHTTPRequestHandler):
    status, headers_sent = 404, dict[str, str]()

    def do_HEAD(self) -> None:
        self.send_response(self.status)
        for name, value in self.headers_sent.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    tls: ssl.SSLContext | None = None

    def get_request(self) -> tuple[socket.socket, object]:
        connection, address = super().get_request()
        if self.tls is None:
            return connection, address
        # The handshake is for the connection's own thread.
        secure = self.tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return secure, address

    def handle_error(self, request: object, client_address: object) -> None:
        pass


@contextmanager
def web_server(
    folder: Path | None = None, status: int = 404, headers: dict[str, str] | None = None
) -> Iterator[str]:
    """A server of http; with a folder for its key, one of https that no authority vouches for."""
    page = type("Page", (_Page,), {"status": status, "headers_sent": headers or {}})
    with _Server((LOCAL, 0), page) as server:
        if folder:
            server.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            server.tls.load_cert_chain(_self_signed(folder / "key.pem"))
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"localhost:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def _self_signed(file: Path) -> Path:
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    now, day = datetime.now(UTC), timedelta(days=1)
    names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - day)
        .not_valid_after(now + day)
        .add_extension(names, critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(certificate.public_bytes(pem) + private)
    return file
