"""What the store's tests share: its data without links, processes that write to it, servers of Valkey."""
