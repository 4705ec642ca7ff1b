"""Many outboxes in one process: which there are, who serves them, and what is shown of them."""
