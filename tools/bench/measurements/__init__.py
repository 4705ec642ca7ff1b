"""One file for each experiment, which knows no other; what several need is on the floors below."""
