from headway.core.phases import Phases
LEARNED = Phases(600.0, (False, True), ((0.9,0.1),(0.1,0.9)), (0.5,0.5))
