"""The databases that take a message for which no transaction was named."""
