"""Links between workers: what goes to members of rooms travels on them, to those workers alone that have some.

The rest of the worker uses ``mesh``.
"""
