"""The language world: no code yet; the core and the exact graph world come first."""
