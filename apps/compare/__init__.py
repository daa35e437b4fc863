"""Rate and distortion of `.inr` files beside those of other codecs, on the user's own files.

`codec.py` says what a codec is; one file per family has them: `pictures.py`, `sounds.py`,
`clips.py`, `shapes.py`, and `own.py` for `.inr`. `kinds.py` puts them together by kind of signal,
`runner.py` runs them, `bjontegaard.py` compares curves, `report.py` writes tables and the page.
"""
