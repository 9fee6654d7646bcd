"""What lies between clients and a cluster: names, ports, proxies as deployed, networks that a test can cut."""
