"""Files: atomic writing, and what is in them."""
