"""Message-shaped objects to core values and back, for rclpy classes and a bag reader alike."""
