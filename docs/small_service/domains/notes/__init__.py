from orm_core import BaseModel, Domain, Service, TextField


class Note(BaseModel):
    text = TextField()


class NotesService(Service[Note]):
    """Notes."""


domain = Domain("notes", models=(Note,), services=(NotesService,))
