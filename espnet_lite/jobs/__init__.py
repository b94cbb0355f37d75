"""Commands as jobs: on this machine, over ssh, or in the queue of a cluster."""
