"""What the relay says of itself: metrics, probes and log lines."""
