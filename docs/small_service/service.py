from os import environ
from wsgiref.simple_server import make_server

from prometheus_client import make_wsgi_app

from domains.notes import NotesService, domain
from orm_core import connect_db, initialize_db, registry

metrics = make_wsgi_app()


def notes(request, start):
    if request["PATH_INFO"] == "/metrics":
        return metrics(request, start)
    if request["REQUEST_METHOD"] == "POST":
        size = int(request["CONTENT_LENGTH"])
        NotesService.create({"text": request["wsgi.input"].read(size).decode()})
    start("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
    return [f"{note.text}\n".encode() for note in NotesService.list()]


initialize_db()
connect_db()
registry.register(domain)
with make_server("127.0.0.1", int(environ.get("PORT", "8000")), notes) as server:
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
