"""``python -m landscape_cli`` is ``landscape``."""

from .app import main

main()
