"""The commands of `outbox-relay`, one module each: look, steer, diagnose, and the daemon."""
