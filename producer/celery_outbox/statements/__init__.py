"""What is executed to store messages, and what a failure of it means. No I/O is done here."""
