"""Training of every policy family from LeRobot datasets (torch, no ROS)."""
