"""The transactions that messages can join, one kind a module; `target.py` finds the one given."""
