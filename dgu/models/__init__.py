"""Denoisers: closed forms and networks."""

from dgu.models.adm import ADMConfig as ADMConfig
from dgu.models.closed_form import GaussianDenoiser as GaussianDenoiser
from dgu.models.edm import EDMDenoiser as EDMDenoiser
from dgu.models.edm import EDMNetwork as EDMNetwork
from dgu.models.edm import edm_from_arrays as edm_from_arrays
from dgu.models.pretrained import Pretrained as Pretrained
from dgu.models.pretrained import load_checkpoint as load_checkpoint
from dgu.models.pretrained import save_network as save_network
