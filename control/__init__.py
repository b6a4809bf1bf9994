"""The control world: any Gymnasium task with continuous observations and actions, with SAC."""
