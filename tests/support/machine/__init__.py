"""What machines do to a service: their disks are full, their power is cut."""
