"""Studies: many samples, their statistics and their controls."""
