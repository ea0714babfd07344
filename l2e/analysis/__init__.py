"""Studies of the method on networks small enough to measure everything."""
