"""Engine and tool parameters from what a live proxy saw.

``observations`` takes from an event log what can be learned from it, ``fit`` finds the parameters of the
roofline that explain the turns, ``command`` prints both as TOML.
"""
