"""What is decided, and the values decided upon. Pure: no I/O, the standard library alone."""
