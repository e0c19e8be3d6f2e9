"""rosbag2, episodes and LeRobot datasets (no rclpy)."""
