"""Colours that say how well something goes, told apart by the colour-blind too (Okabe and Ito)."""

WELL, SO_SO, AMISS = "#009E73", "#E69F00", "#D55E00"
