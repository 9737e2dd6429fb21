from .aid import Aid as Aid
from .auditory import AuditoryModel as AuditoryModel
from .data import Mixtures as Mixtures
from .data import read_folder as read_folder
from .learned_filters import LearnedFilters as LearnedFilters
from .learned_filters import LearnedFiltersConfig as LearnedFiltersConfig
from .limiter import limit as limit
from .listener import from_audiogram as from_audiogram
from .listener import theta_like as theta_like
from .load import load_aid as load_aid
from .masks import Masks as Masks
from .masks import MasksConfig as MasksConfig
from .noise_reduction import rnnoise as rnnoise
from .noise_reduction import spectral_subtraction as spectral_subtraction
from .noise_reduction import wiener as wiener
from .prescriptions import nal_r as nal_r
from .prescriptions import nal_r_compressed as nal_r_compressed
from .streaming import Stream as Stream

__version__: str
__all__: list[str]
