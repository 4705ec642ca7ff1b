"""The samples of docs/commands.md, played on real servers and written into the page."""
