"""Directions and grids: the loss along lines and planes through the weights."""
