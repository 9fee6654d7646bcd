"""Where the store keeps its data: one interface, ``socketcluster_store.engine``, and an engine a folder or module.

Only ``service`` and the commands ``verify`` and ``accept`` name an engine; everybody else is given one.
"""
