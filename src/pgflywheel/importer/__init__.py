"""Lines of a file become spans: pure functions, no database."""
