"""Every analysis on every checkpoint: planned, shared among processes, resumed."""
