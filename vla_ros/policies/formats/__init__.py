"""Checkpoint folders: our own and LeRobot's, and the tensors in them."""
