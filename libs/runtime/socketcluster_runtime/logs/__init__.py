"""What services log, and how much of it.

Everything begins with ``logging.get_logger``; ``conditions`` is for what lasts,
``throttle`` for what single clients cause.
"""
