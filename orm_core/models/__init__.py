"""Models: BaseModel, its fields, soft delete and encrypted columns."""
