from .alignment import correlation_distance as correlation_distance
from .alignment import permutation as permutation
from .alignment import transport as transport
from .audiogram import Audiogram as Audiogram
from .clock import Clock as Clock
from .fitting import Fit as Fit
from .fitting import bayesian_search as bayesian_search
from .fitting import dense_search as dense_search
from .fitting import laplace as laplace
from .frames import Frames as Frames
from .loss import ResponseLoss as ResponseLoss
from .metrics import feve as feve
from .metrics import histogram_divergence as histogram_divergence
from .metrics import normalised_correlation as normalised_correlation
from .metrics import repeatability as repeatability
from .models.check import check_model as check_model
from .models.facts import ModelFacts as ModelFacts
from .models.listener_cost import listener_cost as listener_cost
from .models.load import load_model as load_model
from .models.load import save_model as save_model
from .models.response import ResponseModel as ResponseModel
from .models.response import ResponseModelConfig as ResponseModelConfig
from .models.response import abrnet as abrnet
from .models.response import beta_icnet as beta_icnet
from .models.response import icnet as icnet
from .sound import SAMPLE_RATE as SAMPLE_RATE
from .sound import Sound as Sound
from .sound import calibrate as calibrate
from .sound import level as level
from .sound import mix as mix
from .sound import read as read
from .sound import read_mono as read_mono
from .sound import resample as resample
from .sound import write as write
from .store import Cohort as Cohort

__version__: str
__all__: list[str]
