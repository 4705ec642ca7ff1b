"""Measures the relay and the producer against their limits and peers, in the same run."""
