"""Denoisers: closed forms and networks."""

from dgu.models.closed_form import GaussianDenoiser as GaussianDenoiser
