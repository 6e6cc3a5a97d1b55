"""Triphase from Python: what `import triphase` offers, a thin function over what the command line calls."""
