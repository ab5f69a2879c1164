"""Methods that explain an answer, one file each; `table.py` lists them. Model and normalised images in, maps out."""
