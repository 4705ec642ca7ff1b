"""The picture of the dashboard: a play on private servers, asked about and drawn panel by panel."""
