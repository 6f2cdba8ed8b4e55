"""Judges: given an item and examples, a model's verdict. Knows no database."""
