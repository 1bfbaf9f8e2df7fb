"""Is this graph safe to use? One module for each group of lines of a report."""
