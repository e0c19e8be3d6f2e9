"""Parts of console_node: a web server without ROS, subscriptions, actions, and the state that the page shows."""
