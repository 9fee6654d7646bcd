"""How this worker is: what balancers and health checks are told, and what it does without stores.

The service builds all of it; ``endpoints`` knows ``readiness``.
"""
