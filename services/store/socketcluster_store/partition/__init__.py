"""One owned partition: operations in, results and events out, everything in its order.

``ownership`` and the service know ``partition``; the rest belongs to it.
"""
