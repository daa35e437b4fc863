"""The tabs of the studio, one a file."""
