"""What a checkpoint file holds, read without torch and without ever unpickling."""
