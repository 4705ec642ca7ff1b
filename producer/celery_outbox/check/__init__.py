"""`python -m celery_outbox check`: what will become of each send of a code base.

It reads sources and nothing else: no module of the user's is imported, no function run. What
cannot be told from the source is said to be unknown.
"""
