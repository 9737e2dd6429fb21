from .comparison import Comparison as Comparison
from .comparison import difference as difference
from .delay import in_time as in_time
from .intelligibility import estoi as estoi
from .intelligibility import haspi as haspi
from .intelligibility import stoi as stoi
from .neural import fidelity_and_clarity as fidelity_and_clarity
from .neural import restoration as restoration
from .quality import hasqi as hasqi
from .quality import level_change as level_change
from .quality import output_level as output_level
from .quality import pesq as pesq
from .quality import pesq_narrow as pesq_narrow
from .quality import si_sdr as si_sdr
from .table import Score as Score
from .table import bootstrap as bootstrap
from .table import score_each as score_each
from .table import summarise as summarise

__version__: str
__all__: list[str]
