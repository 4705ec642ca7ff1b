"""Migrations of the schema that holds the inbox."""
