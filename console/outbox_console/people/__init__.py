"""Who somebody is, and what they may see and do. Knows nothing of the database."""
