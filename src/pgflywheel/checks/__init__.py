"""Pure checks on text: the same file runs in the worker and, installed as plpython3u, in the database.

A module of checks imports nothing of the package but ``records`` and takes third-party libraries only when called,
so that its source can stand alone on a server that has no pgflywheel.
"""
