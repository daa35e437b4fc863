"""Rate control: a file of the size or the quality that is asked for."""
