"""What a recorded run puts in front of Python's path. Nothing here imports weightstore before weights are in sight."""
