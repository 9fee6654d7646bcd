"""The cluster's secret: the keys that are derived from it, and files that nobody else may read.

All of it may be imported from outside.
"""
