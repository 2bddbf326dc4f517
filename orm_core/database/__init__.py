"""Connections, the pool, transactions and query events."""
