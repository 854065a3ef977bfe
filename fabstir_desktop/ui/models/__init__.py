"""Table models whose rows are updated in place."""
