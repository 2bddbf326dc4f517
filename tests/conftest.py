pytest_plugins = ["orm_core.testing"]
