"""A validation layer for LLM applications inside the application's own Postgres."""

__version__ = "0.3.0"
