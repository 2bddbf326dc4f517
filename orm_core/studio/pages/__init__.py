"""The studio's pages: what each address answers."""
