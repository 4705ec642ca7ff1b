"""The database: short transactions with a person's role, and what is said where one fails."""
