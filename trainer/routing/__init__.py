"""Routers from a trace store: fitted and kept, and let in by the adapters' gate."""

from trainer.routing.admission import LOSS, Admission, admitted
from trainer.routing.fits import fit_from

__all__ = ["LOSS", "Admission", "admitted", "fit_from"]
