"""The studio: fitting, exploring, comparing and compressing in a browser."""
