"""Finding the weights that code asks for without running it."""
