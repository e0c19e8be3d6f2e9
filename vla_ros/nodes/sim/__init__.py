"""Parts of sim_node."""
