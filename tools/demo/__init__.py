"""`make demo`: a shop whose broker and relay are killed while customers order, and the proof.

Whatever is started here ends with it, Ctrl-C and SIGKILL included; servers that are given by URL
are used and never started, stopped or killed.
"""
