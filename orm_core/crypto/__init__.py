"""Secrets, the keys that encrypt and find them, and where the keys come from."""
