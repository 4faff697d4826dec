"""The whole table: every cell there is."""

from __future__ import annotations

from .cells import PLAIN_CELLS
from .mapping_cells import mapping_cells
from .relay_cells import relay_cells

CELLS = (*PLAIN_CELLS, *mapping_cells(), *relay_cells())
