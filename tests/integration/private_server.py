"""Servers of a test module's own, on a TCP port of the loopback, where roles need passwords.

``cluster()`` runs initdb once; ``Cluster.serve()`` starts a server on a copy of it, so that one
has few connections and another never gets ready. ``tls_front()`` speaks TLS for a server whose
programs were built without it.
"""

from __future__ import annotations

import datetime
import os
import select
import shutil
import socket
import socketserver
import ssl
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path
from typing import IO
from urllib.parse import quote, urlencode

import psycopg2
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from orm_core.embedded import account, binaries

DEADLINE = 30.0
_SSL_REQUEST = struct.pack("!ii", 8, 80877103)
#: the shell ends the server when its own standard input ends: with the test process, at the latest
_LEASH = """exec 3<&0; "$@" </dev/null 3<&- & server=$!
{ read -r _ <&3; kill -INT $server; } & wait $server"""
_FAST = {"fsync": "off", "shared_buffers": "16MB"}


@dataclass(frozen=True)
class PrivateServer:
    """A running server; ``password`` is the one of ``postgres`` and of all roles made here."""

    port: int
    password: str
    host: str = "127.0.0.1"

    def url(
        self,
        database: str = "postgres",
        user: str = "postgres",
        password: str | None = None,
        host: str | None = None,
        **options: str,
    ) -> str:
        secret = quote(self.password if password is None else password, safe="")
        query = f"?{urlencode(options)}" if options else ""
        return f"postgresql://{user}:{secret}@{host or self.host}:{self.port}/{database}{query}"

    def run(self, *statements: str) -> None:
        """Run statements as superuser, in one session; ``{password}`` is the server's."""
        with closing(psycopg2.connect(self.url(), connect_timeout=10)) as connection:
            connection.autocommit = True
            for statement in statements:
                connection.cursor().execute(statement.replace("{password}", self.password))


class Cluster:
    """A fresh data directory to start servers from, in ``folder``."""

    def __init__(self, folder: Path, password: str) -> None:
        self.folder = folder
        self.password = password
        found = binaries.find()
        self._user = account.of_server(folder / "template")
        self._programs = binaries.reachable(found, self._user)
        # Under the method md5, roles whose secret is made for SCRAM use SCRAM.
        secret = folder / "password"
        secret.write_text(password)
        self.give(secret)
        self._template = self._directory("template")
        command = [self._programs / "initdb", "-D", self._template, "-U", "postgres", "--no-sync"]
        command += ["--auth-local=reject", "--auth-host=md5", f"--pwfile={secret}"]
        # initdb would store every secret as MD5 for this method.
        command += ["--set=password_encryption=scram-sha-256"]
        command += ["--encoding=UTF8", f"--locale={binaries.locale()}", "--lc-messages=C"]
        subprocess.run(
            command,
            env=binaries.environment(),
            cwd="/",
            check=True,
            capture_output=True,
            **self._user.process_options(),
        )

    def give(self, path: Path) -> Path:
        """Let only the server's user (and root) read a file or folder."""
        path.chmod(0o700 if path.is_dir() else 0o600)
        if self._user.dropped:
            os.chown(path, self._user.uid, self._user.gid)
        return path

    def _directory(self, name: str) -> Path:
        path = self.folder / name
        path.mkdir()
        return self.give(path)

    def _copy(self, name: str) -> Path:
        target = self._directory(name)
        command = ["cp", "-R", f"{self._template}/.", target]
        subprocess.run(command, cwd="/", check=True, **self._user.process_options())
        return target

    @contextmanager
    def serve(
        self, name: str, *, standby: bool = False, **settings: str
    ) -> Iterator[PrivateServer]:
        """A server with these settings; a ``standby`` starts for ever, as it has no primary."""
        data = self._copy(name)
        if standby:
            (data / "standby.signal").touch()
            settings["hot_standby"] = "off"
        server = PrivateServer(_free_port(), self.password)
        told = {"listen_addresses": server.host, "port": str(server.port)}
        told |= {"unix_socket_directories": "", **_FAST, **settings}
        options = [part for key, value in told.items() for part in ("-c", f"{key}={value}")]
        with tempfile.TemporaryFile() as log:
            process = subprocess.Popen(
                ["/bin/sh", "-c", _LEASH, "sh", self._programs / "postgres", "-D", data, *options],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=binaries.environment(),
                cwd="/",
                start_new_session=True,
                **self._user.process_options(),
            )
            try:
                _wait_until_it_listens(server, process, log)
                yield server
            finally:
                process.communicate(timeout=DEADLINE)


def _wait_until_it_listens(
    server: PrivateServer, process: subprocess.Popen[bytes], log: IO[bytes]
) -> None:
    deadline = time.monotonic() + DEADLINE
    while True:
        try:
            psycopg2.connect(server.url(), connect_timeout=10).close()
        except psycopg2.OperationalError as error:
            if "Hot standby mode is disabled" in str(error):
                return
            if process.poll() is not None:
                log.seek(0)
                raise AssertionError(log.read().decode()) from None
            assert time.monotonic() < deadline, f"not ready within {DEADLINE:g} s"
            time.sleep(0.02)
        else:
            return


@contextmanager
def cluster(password: str) -> Iterator[Cluster]:
    folder = Path(tempfile.mkdtemp(prefix="orm_core-private-"))
    folder.chmod(0o711)
    try:
        yield Cluster(folder, password)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# TLS


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
