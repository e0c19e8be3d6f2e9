"""Thin ROS 2 nodes: parameters, topics, nothing else (rclpy)."""
