"""One file for each experiment. What several need stands in instruments, programs and load."""
