"""What Celery would have sent, caught before it reaches a broker, checked, and made a row."""
