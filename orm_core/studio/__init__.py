"""The studio: a local page to look at a service's data, ``orm-core studio``.

Reads go through connections of its own, which PostgreSQL keeps read-only; edits go through the
domains' services. Needs the extra ``orm_core[studio]``.
"""
