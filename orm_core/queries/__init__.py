"""Reading by pages."""
