"""Where torch lives: from verified bytes to tensors and models."""
