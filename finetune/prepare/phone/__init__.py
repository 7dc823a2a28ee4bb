"""Recordings of phones with a depth sensor, as their apps export them: a module for each app."""
