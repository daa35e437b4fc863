"""Pages that show what an `.inr` file holds: one HTML file each, complete in itself.

`page.py` is the page and its parts, `pieces.py` turns numbers into pictures; one file per kind of
signal says what is shown of it. `web/` has the style and the scripts that pages carry within them.
"""
