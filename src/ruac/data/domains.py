"""The data sets that `ruac data` knows: the 23 domains of the paper's evaluation, and the sources of training data.

One entry a data set, in the file of its group. What an entry says of layout, encoding and licence was checked against public
sources where its field `verified` says so, and nowhere else.
"""

from __future__ import annotations

from difflib import get_close_matches

from ruac.data.domain import Domain
from ruac.data.domains_egocentric import EGOCENTRIC
from ruac.data.domains_objects import OBJECTS
from ruac.data.domains_scenes import SCENES
from ruac.data.domains_scientific import SCIENTIFIC
from ruac.data.domains_source import SOURCES

EVALUATION: tuple[Domain, ...] = (*OBJECTS, *SCENES, *SCIENTIFIC, *EGOCENTRIC)
DOMAINS: dict[str, Domain] = {domain.name: domain for domain in (*EVALUATION, *SOURCES)}


def find_domain(name: str) -> Domain:
    """By its name, in any case. Raises ValueError that suggests the nearest name."""
    names = {known.casefold(): known for known in DOMAINS}
    if name.casefold() in names:
        return DOMAINS[names[name.casefold()]]
    nearest = get_close_matches(name.casefold(), names, n=1, cutoff=0)[0]
    raise ValueError(f"no data set '{name}'; did you mean {names[nearest]}? All of them: ruac data list")
