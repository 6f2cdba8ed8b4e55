"""The only rooms that send SQL."""
