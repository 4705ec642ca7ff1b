"""Runs chosen tests on every version of every server, and writes what came of it into the docs."""
