"""What console_node is made of: a web server without ROS, ears and hands on the graph, and the picture of both."""
