"""Meshes and shardings, and jobs over devices and hosts, public names: see ``dgu.core.parallel``."""

from dgu.core.parallel import barrier as barrier
from dgu.core.parallel import batch_sharding as batch_sharding
from dgu.core.parallel import data_mesh as data_mesh
from dgu.core.parallel import initialize as initialize
from dgu.core.parallel import is_lead as is_lead
from dgu.core.parallel import on_one_device as on_one_device
from dgu.core.parallel import own_devices as own_devices
from dgu.core.parallel import put as put
from dgu.core.parallel import replicated as replicated
from dgu.core.parallel import run_jobs as run_jobs
from dgu.core.parallel import run_stored_jobs as run_stored_jobs
from dgu.core.parallel import shares as shares
from dgu.core.parallel import start as start
from dgu.core.parallel import use_every_core as use_every_core
