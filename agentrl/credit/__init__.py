"""Credit: pure functions from trees to what each turn is worth."""
