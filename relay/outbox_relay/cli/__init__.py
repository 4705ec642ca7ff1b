"""The command line: a thin file for each command, and how what it found is shown."""
