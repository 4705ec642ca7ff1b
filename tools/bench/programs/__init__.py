"""Processes of their own beside a measurement, such as the relay; none outlives the bench."""
