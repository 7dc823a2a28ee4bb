"""Rooms drawn from random numbers, with exact depth: what the reader ``scenes`` and ``data/room/make.py`` stand on.

The world has x and y along the floor and z up, in meters; the floor is z = 0 and the room spans 0 to its size.
B frames are drawn at once, every parameter of a scene being a tensor with B rows. Over pixels only correctly rounded
operations are used (+, -, *, /, square root, comparisons, table look-ups; no matrix products, no sums of floats over a
dimension), so a frame has the same bits alone and in a batch, with any number of threads.
"""
