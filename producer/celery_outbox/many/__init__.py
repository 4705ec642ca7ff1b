"""`app.outbox.send_many`: many tasks in a breath, stored as a loop would have stored them."""
