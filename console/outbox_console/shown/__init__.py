"""How things are said and drawn: pure, from frozen values to text. Asks nobody anything."""
