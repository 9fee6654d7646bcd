"""The history checker of the store: does it keep its word whatever happens to it?

    make history SEED=7 SECONDS=60 ENGINE=lmdb      (or valkey: one server; valkey-cluster: three with a replica each)

Two workers' clients call three stores, whatever they can call, with values from 10 bytes to 900 kB. Meanwhile stores
are killed, stopped for about ``store_hang_timeout``, asked to end, given another time of day or a full disk, often
while many large writes wait for them; workers are killed; Valkey is stopped, paused, killed, failed over, emptied.
Then all is mended, every call is waited for, everything is read by a worker that is new, and the record of it all is
judged. What is wrong is printed with the seed, what was done and when, and the part of the record that shows it.

    plan        what is done, and when: all of it follows from the seed; how it falls together does not
    stores      the processes, their disk, their clocks, and Valkey
    faults      does what the plan says
    workers     a worker: the links to the stores, and what it is told
    clients     what its clients do
    record      what happened
    judge, channels, sessions   what must not have happened: pure functions of the record; ``test_judge`` has each rule
    run         a run of all this; ``test_run`` has some short ones

What is judged:

- What was acknowledged is there, once, in the order of each client; what failed without saying whether is there once
  at most; what was refused is not. Lists: unique items, each at the index that was told. Counters: no number was made
  twice of the one before. Registers: no read shows less than was acknowledged, or read, before it began.
- A channel's subscriber hears each message once, in the order of offsets, or a gap names it; no place has two
  messages; no epoch comes back. Where all is kept, there are no gaps, and no new epochs unless Valkey's life ended.
- A session ends once, not before its time after what was done to it last, and its data stays until then. So do values
  that have a time.
- At the end every partition answers every worker.

After data was taken away on purpose (Valkey emptied, or failed over without ``valkey_wait_replicas``), what was
acknowledged before may be missing; what must never be twice or come back is judged all the same. Nothing is judged by
how long it took, so a slow machine finds nothing that is not there; the exceptions are what never comes, which is
waited for very long.

``HISTORY_LOGS=folder`` has the whole record and the stores' logs written there when something was found.
"""
