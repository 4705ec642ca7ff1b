"""What a measurement is made of: the task, its messages, the queues they go to, and trouble."""
