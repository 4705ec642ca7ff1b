"""The documentation site: the checkout's own pages, and those made from code, in one order."""
