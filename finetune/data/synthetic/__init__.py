"""Worlds drawn from random numbers, with exact depth: what the reader ``scenes`` and ``data/room/make.py`` stand on.

A world has x and y along the floor and z up, in meters; the floor is z = 0 and a room spans 0 to its size.
B frames are drawn at once, every parameter of a world being a tensor with B rows. Pixels are drawn in tiles, so that
each is asked about the bodies near it alone; T tiles of S pixels are a (T, S) tensor. Over pixels only correctly
rounded operations are used (+, -, *, /, square root, comparisons, table look-ups; no matrix products, no sums of floats
over a dimension), so a frame has the same bits alone and in a batch, with any number of threads.
"""
