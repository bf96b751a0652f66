"""Settings that have to stand before any test is imported."""

import os

# OpenMP's threads wait by spinning. Where other programs hold a core, that makes each of the many small parallel loops
# here take as long as the scheduler's time slice.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
