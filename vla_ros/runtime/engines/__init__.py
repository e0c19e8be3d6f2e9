"""Programs other than torch that run a policy's network, and the graphs that they read."""
