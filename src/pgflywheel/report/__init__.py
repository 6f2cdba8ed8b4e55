"""The report: a page from rows, without a database."""
