"""Listening, accepting, descriptors, and the relay of bytes between two connections.

All of it may be imported from outside.
"""
