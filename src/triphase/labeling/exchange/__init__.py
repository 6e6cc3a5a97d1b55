"""Rankings as files: importing and exporting our own formats and those of other tools and data sets."""
