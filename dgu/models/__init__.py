"""Denoisers: closed forms and networks."""

from typing import TYPE_CHECKING

from dgu.core.lazy import load_on_use

if TYPE_CHECKING:
    from dgu.distributions.boxes import BoxMixture as BoxMixture
    from dgu.models.adapted import AdaptedDenoiser as AdaptedDenoiser
    from dgu.models.closed_form import GaussianDenoiser as GaussianDenoiser
    from dgu.models.controls import SkipDenoiser as SkipDenoiser
    from dgu.models.controls import untrained as untrained
    from dgu.models.diffusers.autoencoder import AutoencoderKL as AutoencoderKL
    from dgu.models.diffusers.autoencoder import load_autoencoder_kl as load_autoencoder_kl
    from dgu.models.diffusers.folder import diffusers_from_arrays as diffusers_from_arrays
    from dgu.models.diffusers.folder import load_diffusers as load_diffusers
    from dgu.models.diffusers.latents import decoded as decoded
    from dgu.models.diffusers.latents import unscaled as unscaled
    from dgu.models.diffusers.network import DiffusersDenoiser as DiffusersDenoiser
    from dgu.models.diffusers.network import DiffusersNetwork as DiffusersNetwork
    from dgu.models.dit_config import DiTConfig as DiTConfig
    from dgu.models.edm import EDMDenoiser as EDMDenoiser
    from dgu.models.edm import EDMNetwork as EDMNetwork
    from dgu.models.edm2_config import EDM2Config as EDM2Config
    from dgu.models.gaussian_mixture import gaussian_mixture as gaussian_mixture
    from dgu.models.gaussian_mixture import two_modes as two_modes
    from dgu.models.guided_gaussian import guided_gaussian as guided_gaussian
    from dgu.models.guided_gaussian import product_gaussian as product_gaussian
    from dgu.models.levels import LevelDenoisers as LevelDenoisers
    from dgu.models.levels import LinearNetwork as LinearNetwork
    from dgu.models.levels import Network as Network
    from dgu.models.levels import NetworkDenoiser as NetworkDenoiser
    from dgu.models.linear import LinearDenoiser as LinearDenoiser
    from dgu.models.local import LocalDenoiser as LocalDenoiser
    from dgu.models.local_gaussian import LocalGaussianDenoiser as LocalGaussianDenoiser
    from dgu.models.local_mixture import LocalMixtureDenoiser as LocalMixtureDenoiser
    from dgu.models.mixtures import EmpiricalDenoiser as EmpiricalDenoiser
    from dgu.models.mixtures import MoLRGDenoiser as MoLRGDenoiser
    from dgu.models.mlp import MLPDenoiser as MLPDenoiser
    from dgu.models.molrg import MoLRG as MoLRG
    from dgu.models.molrg import random_basis as random_basis
    from dgu.models.molrg import random_subspaces as random_subspaces
    from dgu.models.preconditioning import DAEPreconditioning as DAEPreconditioning
    from dgu.models.preconditioning import EDMPreconditioning as EDMPreconditioning
    from dgu.models.preconditioning import IDDPMPreconditioning as IDDPMPreconditioning
    from dgu.models.preconditioning import VEPreconditioning as VEPreconditioning
    from dgu.models.preconditioning import VESDEPreconditioning as VESDEPreconditioning
    from dgu.models.preconditioning import VPPreconditioning as VPPreconditioning
    from dgu.models.predictions import ConsistencyPreconditioning as ConsistencyPreconditioning
    from dgu.models.predictions import Prediction as Prediction
    from dgu.models.pretrained import Pretrained as Pretrained
    from dgu.models.pretrained import export_network as export_network
    from dgu.models.pretrained import load_checkpoint as load_checkpoint
    from dgu.models.pretrained import save_network as save_network
    from dgu.models.queries import PatchDenoiser as PatchDenoiser
    from dgu.models.queries import QueryDenoiser as QueryDenoiser
    from dgu.models.queries import WienerDenoiser as WienerDenoiser
    from dgu.models.random_features import RandomFeatures as RandomFeatures
    from dgu.models.random_features import RandomFeatureScore as RandomFeatureScore
    from dgu.models.random_hierarchy import RandomHierarchy as RandomHierarchy
    from dgu.models.shallow import ShallowNet as ShallowNet
    from dgu.models.shallow import ShallowScore as ShallowScore
    from dgu.models.skipnet import SkipNetwork as SkipNetwork
    from dgu.models.snapshot import load_edm_pickle as load_edm_pickle
    from dgu.models.subspace_networks import HardmaxNetwork as HardmaxNetwork
    from dgu.models.subspace_networks import SoftmaxNetwork as SoftmaxNetwork
    from dgu.models.time_schedules import DiscreteSchedule as DiscreteSchedule
    from dgu.models.time_schedules import FlowSchedule as FlowSchedule
    from dgu.models.time_schedules import ProcessSchedule as ProcessSchedule
    from dgu.models.time_schedules import SigmaSchedule as SigmaSchedule
    from dgu.models.torch_bridge import TorchNetwork as TorchNetwork
    from dgu.models.torch_bridge import torch_network as torch_network
    from dgu.models.tutorial_config import TutorialUNetConfig as TutorialUNetConfig
    from dgu.models.unet import NCSNPP as NCSNPP
    from dgu.models.unet import ADMConfig as ADMConfig
    from dgu.models.unet import SongUNetConfig as SongUNetConfig
    from dgu.models.weights import edm2_from_arrays as edm2_from_arrays
    from dgu.models.weights import edm_from_arrays as edm_from_arrays

load_on_use(__name__)
