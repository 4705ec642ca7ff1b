"""What `doctor` finds at a RabbitMQ: over AMQP, and in its management API where that is open."""
