"""Sets the threads before torch is imported: one per process, since pytest-xdist runs one process per core."""

import os


os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
