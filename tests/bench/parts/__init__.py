"""A part is a module with measure(bench): it measures, adds its tables to the page and tells its goals."""
