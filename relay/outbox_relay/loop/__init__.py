"""The loop: claims, publishes, settles and outlives what fails. It knows no particular broker."""
