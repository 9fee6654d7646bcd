"""A bad network in a proxy, which delays, limits, cuts, stops and answers itself."""
