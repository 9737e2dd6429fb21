"""Speech by eSpeak NG, and sentences for it to speak.

The library and its voices come in the `espeakng-loader` wheel: nothing is installed or downloaded.
"""

import _ctypes
import contextlib
import ctypes
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from icsim.extras import extra

# Values of the library's interface. Source: espeak-ng, speak_lib.h.
_SYNCHRONOUS = 2
_DONT_EXIT = 0x8000
_UTF8 = 1
_RATE, _PITCH, _RANGE = 1, 3, 4
_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)

LANGUAGES = {
    "en-us": "en",
    "en": "en",
    "en-gb-scotland": "en",
    "de": "de",
    "es": "es",
    "fr": "fr",
}
"""Accents of the library that are used here, and the language of their sentences."""

LOW_SPEAKERS = (
    *("m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8"),
    *("Andy", "Lee", "Mario", "Michael", "Diogo"),
)
HIGH_SPEAKERS = (
    *("f1", "f2", "f3", "f4", "f5"),
    *("Annie", "Andrea", "belinda", "linda", "anika", "steph"),
)
"""Variants of the library (vocal tract, pitch, breath) that serve as speakers."""

FURTHER_SPEAKERS = (
    *("Alex", "Denis", "Gene", "Hugo", "Marco", "Mike", "antonio", "boris", "ed", "ian"),
    *("norbert", "pablo", "paul", "victor"),
    *("Alicia", "Nguyen", "aunty", "grandma", "shelby", "steph2"),
)
"""Twenty more, 14 low and 6 high, who are in no split of any cohort: for judgements on speech that
no training and no choice has met."""

_SENTENCES = {
    "en": (
        "yesterday|at noon|after the rain|without any warning|this morning|before the show|"
        "once again|in the usual way|on Thursday|to our surprise|just outside|most evenings",
        "a young|the cheerful|our oldest|his noisy|that clever|the weary|one foolish|her gentle|"
        "an anxious|the royal|each brave|my short|some shy|the vague",
        "judge|shepherd|cousin|violin teacher|painter|joiner|boatman|thief|sailor|choir master|"
        "goose|zoo keeper|hunter|nurse|yellow fox|wizard|father|cook",
        "washed|borrowed|measured|pulled out|forgot|chose|enjoyed|weighed|tore up|should fetch|"
        "gave away|will polish|noticed|carved|threw over|kept|hid|buried",
        "seven boxes|the thick rope|a bowl of soup|both huge doors|three feathers|the azure vase|"
        "five cheap shoes|an oily chain|the loud engine|four pink balloons|his leather gloves|"
        "the usual treasure|a jar of honey|two wooden spoons|every good book|the rough map",
        "near the harbour|behind the church|by the garage|under the oak|for the tired crowd|"
        "in the shade|with great pleasure|along the narrow path|despite the thunder|at the station|"
        "beyond the vineyard|on the roof|without a sound|through the fog",
    ),
    "de": (
        "gestern|am Abend|nach dem Regen|ohne Grund|jeden Sommer|zum Glück|mittags|kurz danach|"
        "im Frühling|seit Wochen",
        "suchen|tragen|verkaufen|zeichnen|pflegen|wiegen|schätzen|verstecken|waschen|bringen|"
        "öffnen|zählen|bauen|färben",
        "die alten|viele fleißige|zwei müde|die jungen|sechs fröhliche|manche kühne|einige ruhige|"
        "die klügsten|fünf freche|unsere netten",
        "Fischer|Köche|Schüler|Nachbarn|Jäger|Töchter|Zwerge|Lehrerinnen|Pfarrer|Bäuerinnen|"
        "Gärtner|Könige|Matrosen|Freundinnen",
        "grüne Boote|schwere Koffer|süße Äpfel|lange Leitern|jene Bücher|zwölf Hüte|bunte Tücher|"
        "leere Flaschen|neue Schuhe|kleine Vögel|hölzerne Räder|weiche Kissen",
        "am Hafen|hinter der Kirche|im Wald|unter der Brücke|auf dem Dach|vor dem Bahnhof|"
        "bei den Mühlen|zwischen den Häusern|neben dem Teich|über dem Tal",
    ),
    "es": (
        "ayer|por la tarde|después del baile|sin prisa|cada jueves|al amanecer|de repente|en junio|"
        "otra vez|casi siempre",
        "los viejos|muchos|cinco|aquellos|nuestros|los buenos|los extraños|varios|dos jóvenes|los",
        "pescadores|vecinos|niños|cocineros|pastores|jueces|guitarristas|zapateros|ingenieros|"
        "jardineros|músicos|reyes|carpinteros|hermanos",
        "buscan|llevan|venden|pintan|guardan|cortan|abren|cuentan|lavan|arreglan|recogen|olvidan|"
        "dibujan|eligen",
        "barcos verdes|tres relojes|caballos negros|quesos frescos|libros gruesos|mil pájaros|"
        "los juguetes|zapatos rojos|muchas llaves|cien hojas|botellas llenas|guantes de lana",
        "cerca del puerto|en la calle|junto al río|bajo el puente|detrás de la iglesia|con cuidado|"
        "para la fiesta|sobre el tejado|entre los árboles|hacia el norte",
    ),
    "fr": (
        "hier|le soir|après la pluie|sans bruit|chaque jeudi|au printemps|tout à coup|en juin|"
        "à midi|bien souvent",
        "les vieux|trois jeunes|plusieurs|quelques|nos bons|cinq grands|les heureux|leurs petits|"
        "ces braves|deux",
        "pêcheurs|voisins|bergers|cuisiniers|juges|musiciens|bûcherons|rois|jardiniers|chasseurs|"
        "peintres|écoliers|meuniers|cousins",
        "cherchent|portent|vendent|dessinent|gardent|coupent|ouvrent|comptent|lavent|ramassent|"
        "oublient|choisissent|cachent|jugent",
        "des bateaux verts|huit pommes mûres|un long fil|des chevaux noirs|la grande échelle|"
        "mille oiseaux|leurs gants bruns|un œuf|des feuilles jaunes|vingt chapeaux|du pain chaud|"
        "les jouets neufs",
        "près du port|dans la rue|au bord de l'eau|sous le pont|derrière l'église|avec soin|"
        "pour la fête|sur le toit|entre les arbres|loin d'ici",
    ),
}
"""Words for each place of a sentence, by language; every combination is a sentence."""


def sentences(
    language: str, generator: np.random.Generator, part: int = 0, parts: int = 1
) -> Iterator[str]:
    """Sentences drawn at random, never the same twice.

    Args:
        language: One of `LANGUAGES`' values.
        generator: Random numbers.
        part: Which of the `parts` disjoint shares of all sentences to draw from, so that
            iterators of different parts never say the same.
        parts: How many shares there are.

    >>> a = sentences("en", np.random.default_rng(0))
    >>> len({next(a) for _ in range(100)})
    100
    """
    places = [words.split("|") for words in _SENTENCES[language]]
    said: set[tuple[int, ...]] = set()
    while len(said) < np.prod([len(words) for words in places]) // (2 * parts):
        picks = tuple(int(generator.integers(len(words))) for words in places)
        if sum(picks) % parts == part and picks not in said:
            said.add(picks)
            yield " ".join(words[i] for words, i in zip(places, picks, strict=True)) + "."


def speak(
    text: str,
    voice: str = "en-us+m3",
    rate_wpm: int = 170,
    pitch: int = 50,
    pitch_range: int = 50,
) -> tuple[Tensor, float]:
    """Speak a text; the same call gives the same samples in every process.

    Args:
        text: What to say.
        voice: An accent and a speaker of the library, `accent+speaker`.
        rate_wpm: Words a minute, 80 to 450.
        pitch: Mean pitch, 0 to 100; 50 is the speaker's own.
        pitch_range: Intonation, 0 (monotone) to 100.

    Returns:
        Samples within ±1, `(T,)` in float32, and their rate [Hz].

    Raises:
        ValueError: If the voice is unknown, an argument out of range, or nothing was spoken.
        OSError: If the library cannot be loaded.

    >>> samples, rate_hz = speak("Hello.", "en+f2")
    >>> samples.dtype, rate_hz
    (torch.float32, 22050.0)
    """
    for name, value, low, high in (
        ("rate_wpm", rate_wpm, 80, 450),
        ("pitch", pitch, 0, 100),
        ("pitch_range", pitch_range, 0, 100),
    ):
        if not low <= value <= high:
            raise ValueError(f"{name} is {value}; eSpeak NG takes {low} to {high}")
    with _library() as (library, rate_hz):
        _set_voice(library, voice)
        for parameter, value in ((_RATE, rate_wpm), (_PITCH, pitch), (_RANGE, pitch_range)):
            library.espeak_SetParameter(parameter, int(value), 0)
        samples = _synthesise(library, text, limit=int(rate_hz * (5 + len(text))))
    if not samples.any():
        raise ValueError(f"nothing was spoken for {text!r} with voice {voice}; give it words")
    return torch.from_numpy(samples.astype(np.float32) / 2**15), float(rate_hz)


def _wheel() -> ModuleType:
    with extra("simulation"):
        import espeakng_loader
    return espeakng_loader


@contextlib.contextmanager
def _library() -> Iterator[tuple[ctypes.CDLL, int]]:
    """A library in its first state, and its sample rate [Hz].

    The library carries jitter and phase from one sentence to the next, and starting it anew does
    not reset them. A private copy does, whoever else has the library open (about 2 ms).
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        try:
            data = _wheel().get_data_path()
            library = ctypes.CDLL(shutil.copy(_wheel().get_library_path(), folder))
        except (OSError, RuntimeError) as error:
            raise OSError(
                f"eSpeak NG cannot be loaded ({error}); unless {folder} is full, reinstall it with "
                "`pip install --force-reinstall espeakng-loader`, or use sound files of your own"
            ) from error
        try:
            rate_hz = library.espeak_Initialize(_SYNCHRONOUS, 0, data.encode(), _DONT_EXIT)
            if rate_hz <= 0:
                raise OSError(f"eSpeak NG finds no voices in {data}; reinstall espeakng-loader")
            library.espeak_ng_SetRandSeed(0)  # breath noise, seeded by the clock otherwise
            yield library, rate_hz
            library.espeak_Terminate()
        finally:
            close = "dlclose" if hasattr(_ctypes, "dlclose") else "FreeLibrary"
            getattr(_ctypes, close)(library._handle)


def _set_voice(library: ctypes.CDLL, voice: str) -> None:
    # The library takes an unknown speaker for none and stays silent about it.
    accent, _, speaker = voice.partition("+")
    speakers = Path(_wheel().get_data_path()) / "voices" / "!v"
    if speaker and not (speakers / speaker).is_file():
        raise ValueError(f"voice {voice}: eSpeak NG has no speaker {speaker}; see LOW_SPEAKERS")
    if not accent or library.espeak_SetVoiceByName(voice.encode()) != 0:
        raise ValueError(f"voice {voice}: eSpeak NG has no accent {accent!r}; see LANGUAGES")


def _synthesise(library: ctypes.CDLL, text: str, limit: int) -> np.ndarray:
    """Samples `(T,)` in int16; some texts never end, so that `limit` samples end them."""
    pieces = []

    @_CALLBACK
    def collect(samples, count, _events):
        if samples and count > 0:
            pieces.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return int(sum(map(len, pieces)) > limit)

    library.espeak_SetSynthCallback(collect)
    encoded = text.encode() + b"\0"
    nothing = ctypes.c_void_p()
    size, start, end = ctypes.c_size_t(len(encoded)), ctypes.c_uint(0), ctypes.c_uint(0)
    status = library.espeak_Synth(
        encoded, size, start, ctypes.c_int(1), end, ctypes.c_uint(_UTF8), nothing, nothing
    )
    library.espeak_Synchronize()
    if status != 0 or sum(map(len, pieces)) > limit:
        raise ValueError(f"eSpeak NG cannot say {text!r} (status {status}); use plain sentences")
    return np.concatenate(pieces) if pieces else np.zeros(0, np.int16)
