"""Whole benches in turns: on two versions of a server, or of two commits."""
