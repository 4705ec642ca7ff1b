"""RabbitMQ and anything else that speaks AMQP 0-9-1: publishing with confirms, at full speed."""
