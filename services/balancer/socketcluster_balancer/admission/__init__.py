"""Who is let in: the limits' last word, and the middleware of the user's balancer controller.

``placement`` asks ``admission.Admission``; the service runs ``controller``.
"""
