"""TLS for a private server whose programs were built without it, and certificates to test with."""

from __future__ import annotations

import datetime
import select
import socket
import socketserver
import ssl
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from private_server import DEADLINE, PrivateServer

_SSL_REQUEST = struct.pack("!ii", 8, 80877103)


@contextmanager
def tls_front(server: PrivateServer, certificate: Path, key: Path) -> Iterator[PrivateServer]:
    """The same server at another port, which offers TLS to those who ask for it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    class Front(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):  # a client that does not trust us hangs up
                self.serve(self.request)

        def serve(self, client: socket.socket) -> None:
            first = client.recv(8)
            if first == _SSL_REQUEST:
                client.sendall(b"S")
                client = context.wrap_socket(client, server_side=True)
                first = b""
            with client, socket.create_connection((server.host, server.port)) as upstream:
                upstream.sendall(first)
                _relay(client, upstream)

    class Listener(socketserver.ThreadingTCPServer):
        daemon_threads = True
        request_queue_size = 64

    with Listener((server.host, 0), Front) as listener:
        thread = threading.Thread(target=listener.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield replace(server, port=listener.server_address[1])
        listener.shutdown()
        thread.join(DEADLINE)


def _relay(client: socket.socket, upstream: socket.socket) -> None:
    while True:
        ready, _, _ = select.select([client, upstream], [], [])
        for source, target in ((client, upstream), (upstream, client)):
            while source in ready:
                data = source.recv(1 << 16)
                if not data:
                    return
                target.sendall(data)
                if not (isinstance(source, ssl.SSLSocket) and source.pending()):
                    break


# Certificates


def write_authority(folder: Path, name: str) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """A root certificate, ``<name>.pem`` in the folder, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    root = (
        _certificate(subject, subject, key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / f"{name}.pem").write_bytes(root.public_bytes(serialization.Encoding.PEM))
    return root, key


def write_server_certificate(
    folder: Path,
    issuer: tuple[x509.Certificate, ec.EllipticCurvePrivateKey],
    names: tuple[str, ...],
) -> tuple[Path, Path]:
    """A certificate for these hosts and its key, as two files."""
    root, root_key = issuer
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    certificate = (
        _certificate(subject, root.subject, key.public_key())
        .add_extension(x509.SubjectAlternativeName([_san(one) for one in names]), critical=False)
        .sign(root_key, hashes.SHA256())
    )
    paths = folder / "server.crt", folder / "server.key"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return paths


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
    )


def _san(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)
