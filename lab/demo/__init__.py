"""Pictures of the documents and of the workflows, of what `python dev.py demo` made."""
