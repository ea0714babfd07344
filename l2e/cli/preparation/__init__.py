"""All that a run needs, fetched into one folder on a node with network."""
