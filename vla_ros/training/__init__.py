"""Training a policy from a dataset (torch, no ROS)."""
