"""What is asked of the outbox, and done to it: a file for each page. SQL in, frozen values out."""
