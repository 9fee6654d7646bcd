"""What workers and stores say to each other (``messages``, ``partitioning``, ``packing``), and the worker's end of it.

Workers begin with ``client``; stores and the launcher import only those three.
"""
