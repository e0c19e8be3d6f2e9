"""Parts of executor_node."""
