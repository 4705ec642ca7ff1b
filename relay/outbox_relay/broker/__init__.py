"""Everything about brokers. No client library is loaded until one of them is connected to."""
