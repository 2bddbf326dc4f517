from domains.notes import domain
from orm_core import initialize_db, registry

registry.register(domain)
registry.router(initialize_db()).run()
