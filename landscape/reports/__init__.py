"""One self-contained page about all stored runs of a folder."""
