"""The Python API: what `import triphase` offers, a thin layer over the functions of the command line."""
