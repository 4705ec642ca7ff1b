"""The console's pages as pictures."""
