"""Measures the relay and the producer against their limits and peers, in the same run.

`experiments` is the catalogue: it names what `measurements/` has, at a `scale`, in a `lab`.
"""
