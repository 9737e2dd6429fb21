"""An exported aid gives what its stream gives."""

import pytest
import torch

from compensation.export import Device, export
from compensation.learned_filters import LearnedFilters, LearnedFiltersConfig
from compensation.masks import Masks, MasksConfig
from compensation.streaming import Stream
from icsim.sound import calibrate

THETA = torch.tensor([0.2, 0.7, 0.4])


@pytest.fixture(params=["masks", "waveform"])
def aid(request):
    torch.manual_seed(0)
    if request.param == "masks":
        aid = Masks(MasksConfig(listener=3, bands=5, width=4, layers=1, window=256, hop=24))
    else:
        aid = LearnedFilters(LearnedFiltersConfig(listener=3, bands=8, width=6, window=256, hop=24))
    with torch.no_grad():
        aid.leave.weight.mul_(20)
    return aid.eval()


# Of torch's own, when it reads a program back.
@pytest.mark.filterwarnings("ignore:The given buffer is not writable")
def test_a_saved_program_gives_what_the_stream_gives(aid, tmp_path):
    torch.export.save(export(aid, THETA), tmp_path / "aid.pt2")
    program = torch.export.load(tmp_path / "aid.pt2").module()
    block = Device(aid, THETA).block_samples
    generator = torch.Generator().manual_seed(1)
    sound = calibrate(torch.randn(12 * block, generator=generator), 60.0)
    stream = Stream(aid, THETA)
    expected, found = [], []
    for turn, part in enumerate(sound.split(block)):
        exponents = (1.0, 1.0) if turn < 6 else (0.5, 0.8)
        stream.turn(*exponents)
        expected.append(stream(part))
        found.append(program(part[None], *map(torch.tensor, exponents))[0])
    expected, found = torch.cat(expected), torch.cat(found)
    # A stream gives a first block of silence; a program gives its first block at once.
    late = aid.block_samples
    assert (found[: -late or None] - expected[late:]).abs().max() < 1e-5 * expected.abs().max()
    assert expected.abs().max() > 0


def test_a_listener_of_another_size_is_refused(aid):
    with pytest.raises(ValueError, match="listener must be"):
        export(aid, torch.tensor([0.5]))
