"""Native kernels of aligncli: their sources, how they are compiled, and where they lie. Knows nothing of aligncli."""
