"""SocketCluster's store: keeps sessions and channels, and tells workers what happens to them.

What is in ``__all__`` is for store controllers; each name is imported when it is asked for. The launcher imports
``settings``.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from socketcluster_store.data.procedures import Procedure, ProcedureTree, Store, Value
    from socketcluster_store.errors import Refusal
else:
    from socketcluster_runtime.lazy import names_of

    __getattr__, __dir__ = names_of(
        __name__,
        {
            "socketcluster_store.data.procedures": ["Procedure", "ProcedureTree", "Store", "Value"],
            "socketcluster_store.errors": ["Refusal"],
        },
    )

__all__ = ["Procedure", "ProcedureTree", "Refusal", "Store", "Value"]
