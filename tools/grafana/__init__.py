"""The Grafana dashboard as code; `make dashboard` writes deploy/grafana/outbox.json from it."""
