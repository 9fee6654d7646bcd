"""The store controller of the cluster's tests."""


def run(store):
    @store.procedure
    def deposit(tree, name, amount):
        balance = (tree.get(["deposit", name]) or 0) + amount
        if balance < 0:
            raise ValueError("overdrawn")
        tree.set(["deposit", name], balance)
        return balance
