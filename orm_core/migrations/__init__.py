"""Migrations: plain peewee-migrate files, written from the models, applied in one linear order."""
