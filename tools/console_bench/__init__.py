"""How long the console's pages take over a very full outbox, and what watching costs."""
