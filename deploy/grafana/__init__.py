"""Dev-only: the Grafana dashboard as code; `make dashboard` writes outbox.json from it."""
