"""Thin ROS 2 nodes: parameters and topics only (rclpy)."""
