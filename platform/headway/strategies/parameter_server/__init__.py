"""Parameters in ranges, each carried by one worker with its optimiser's state, and copied to the next."""

from __future__ import annotations

from headway.strategies.parameter_server.cut import Cut as Cut
from headway.strategies.parameter_server.cut import is_elementwise as is_elementwise
from headway.strategies.parameter_server.handing_over import gathered_state as gathered_state
from headway.strategies.parameter_server.handing_over import hand_over as hand_over
from headway.strategies.parameter_server.handing_over import scattered as scattered
from headway.strategies.parameter_server.ranged import Ranged as Ranged
