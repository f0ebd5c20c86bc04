"""Files: written whole or not at all, and what people wrote in them checked. Not the pack's own."""
