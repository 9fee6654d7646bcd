"""Who is let in: the middleware of the user's balancer controller.

The service finds and runs ``controller``, and builds ``admission``; nobody else knows them.
"""
