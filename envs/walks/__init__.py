"""The exact world: walks on a graph, where the optimal policy, its likelihood and its gradient are computed exactly."""
