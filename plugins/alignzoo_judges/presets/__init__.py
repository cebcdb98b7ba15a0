"""Published judge models in their publishers' own formats, one file each."""
