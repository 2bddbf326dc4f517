"""Migrations: plain peewee-migrate files, applied in one linear order."""
