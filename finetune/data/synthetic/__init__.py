"""Worlds drawn from random numbers, with exact depth; the reader ``scenes`` and ``data/room/make.py`` use them.

A world has x and y along the floor and z up, in meters; the floor is z = 0 and a room spans 0 to its size.
B frames are drawn at once: every parameter of a world is a tensor with B rows. Pixels are drawn in tiles, so that each
pixel is tested only against the bodies near it; T tiles of S pixels are a (T, S) tensor. Pixels use only operations
that round correctly (+, -, *, /, square root, comparisons, table look-ups; no matrix products, no sums of floats over a
dimension), so a frame has the same bits alone and in a batch, with any number of threads.
"""
