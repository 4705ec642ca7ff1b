"""What becomes of figures: rounds, goals, tables, a plot. It knows no measurement."""
