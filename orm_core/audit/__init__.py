"""The audit trail: read it, verify its chain, prune it. Its triggers: ``orm_core.models.triggers``."""
